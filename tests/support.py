"""A running Offhook for tests that want the real thing: a process of its own, in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from offhook.testing.process import CommandFailed, ServeProcess, free_port

__all__ = ["CommandFailed", "ServerProcess", "free_port"]


class ServerProcess(ServeProcess):
    """``offhook serve`` as a process, with TLS and its usual limits.

    Args:
        data_dir: its data folder; kept over restarts.
        settings: further settings by name, as ``offhook.toml`` has them.
        functions: the text of a Python module with the applications' functions.
    """

    def __init__(
        self, data_dir: Path, *, settings: Mapping[str, str] | None = None, functions: str | None = None
    ) -> None:
        super().__init__(data_dir, tls=True, settings=settings, functions=functions)

    @property
    def http_host(self) -> str:
        """Host and port of the plain listener."""
        return self.host

    @property
    def pid(self) -> int:
        """The process's id, also of one that has just ended."""
        assert self._process is not None
        return self._process.pid

    @property
    def api_key(self) -> str:
        """The API key of the application that the server made on its empty database."""
        shown = self.cli("app", "show", "default")
        assert isinstance(shown, dict)
        return str(shown["api_key"])
