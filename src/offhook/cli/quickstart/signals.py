"""What ends a command that has something to tidy up: a session, a guest, or a server of its own."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

ENDING = ("SIGTERM", "SIGHUP")
"""Signals after which the commands still tidy up; SIGHUP is the end of the terminal. Ctrl-C is asyncio's."""


def cancel_on_signals() -> None:
    """Has these signals cancel the current task from now on; what the program was told to ignore stays ignored.

    Where the event loop takes no signals, as on Windows, nothing happens.
    """
    task = asyncio.current_task()
    if task is None:
        return
    loop = asyncio.get_running_loop()
    for number in signal.valid_signals():
        # Not every system has all of them, and nohup has SIGHUP ignored.
        name = getattr(number, "name", "")
        if name in ENDING and signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, task.cancel)
