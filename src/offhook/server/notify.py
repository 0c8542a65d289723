"""Tells systemd how the service is (``Type=notify``; sd_notify(3)). Elsewhere nothing is told."""

from __future__ import annotations

import os
import socket
import time

from offhook.server.logs import get_logger

logger = get_logger(__name__)

VARIABLE = "NOTIFY_SOCKET"
"""Environment variable: where systemd listens."""


def notify_ready() -> None:
    """It serves, for the first time or again."""
    _notify("READY=1")


def notify_reloading() -> None:
    """It reads its settings anew, until it is ready again."""
    _notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def notify_stopping() -> None:
    """It sends its clients away."""
    _notify("STOPPING=1")


def _notify(state: str) -> None:
    path = os.environ.get(VARIABLE)
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1.0)
            sock.connect(address)
            sock.sendall(state.encode())
    except OSError as error:
        logger.warning("systemd could not be told", state=state, reason=str(error))
