"""The command line. Commands import heavy modules when they run, so that help appears at once."""

from __future__ import annotations
