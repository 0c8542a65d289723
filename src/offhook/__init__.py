"""Offhook: a self-hosted real-time communications server and SDK."""

from __future__ import annotations

__version__ = "0.1.0"
