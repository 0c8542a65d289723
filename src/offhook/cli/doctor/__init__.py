"""``offhook doctor``: looks at everything a server needs, and says what to do about what it finds."""

from __future__ import annotations

from offhook.cli.doctor.findings import Finding, Level
from offhook.cli.doctor.machine import versions
from offhook.cli.doctor.report import examine

__all__ = ["Finding", "Level", "examine", "versions"]
