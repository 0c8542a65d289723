"""A running Offhook for tests that want the real thing: a process of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

READY_TIMEOUT = 30.0


class CommandFailed(Exception):
    """An ``offhook`` command ended with an error.

    Attributes:
        code: its exit code.
        output: what it wrote to standard error.
    """

    def __init__(self, code: int, output: str) -> None:
        super().__init__(f"exit code {code}: {output}")
        self.code = code
        self.output = output


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """``offhook serve`` as a process.

    Args:
        data_dir: its data folder; kept over restarts.
        settings: further settings by name, as OFFHOOK_ variables.
        functions: the text of a Python module with the applications' functions.
    """

    def __init__(
        self, data_dir: Path, *, settings: Mapping[str, str] | None = None, functions: str | None = None
    ) -> None:
        self.data_dir = data_dir
        self.log_file = data_dir / "server.log"
        self._ports = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        data_dir.mkdir(parents=True, exist_ok=True)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")},
            "OFFHOOK_DATA_DIR": str(data_dir),
            "OFFHOOK_PORT": str(self._ports[0]),
            "OFFHOOK_TLS_PORT": str(self._ports[1]),
            "OFFHOOK_TLS_DEV": "true",
            "OFFHOOK_LOG_FORMAT": "json",
            "OFFHOOK_DRAIN_SECONDS": "0",
            "PYTHONPATH": str(Path(__file__).parents[1] / "src"),
            **{f"OFFHOOK_{name.upper()}": value for name, value in (settings or {}).items()},
        }
        if functions is not None:
            module = data_dir / "application_functions.py"
            module.write_text(functions)
            self._environment["OFFHOOK_FUNCTIONS"] = str(module)

    @property
    def http_host(self) -> str:
        """Host and port of the plain listener."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def tls_host(self) -> str:
        """Host and port of the TLS listener."""
        return f"localhost:{self._ports[1]}"

    @property
    def url(self) -> str:
        """URL of the plain listener."""
        return f"http://{self.http_host}"

    @property
    def ca_file(self) -> Path:
        """The certificate of the development authority."""
        return self.data_dir / "tls" / "authority.pem"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def api_key(self) -> str:
        """The API key of the application that the server made on its empty database."""
        shown = self.cli("app", "show", "default")
        assert isinstance(shown, dict)
        return str(shown["api_key"])

    def start(self) -> None:
        """Starts the process and waits until it is ready."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "offhook", "serve"],
                env=self._environment,
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Waits until the process answers that it is ready."""
        assert self._process is not None
        deadline = time.monotonic() + READY_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended with {self._process.returncode}:\n{self.log()}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"the server is not ready:\n{self.log()}")

    def stop(self, timeout: float = 15) -> int:
        """Ends the process with SIGTERM and returns its exit code."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """Ends the process with SIGKILL."""
        self._end(signal.SIGKILL, 15)

    def restart(self) -> None:
        """Ends the process with SIGTERM and starts it again on the same ports."""
        self.stop()
        self.start()

    def _end(self, number: signal.Signals, timeout: float) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not end:\n{self.log()}") from None

    def log(self) -> str:
        """The last part of what the process wrote."""
        return self.log_file.read_text(errors="replace")[-8000:]

    def cli(self, *arguments: str, stdin: str | None = None) -> object:
        """Runs ``offhook … --json`` on the same data folder and returns what it printed.

        Raises:
            CommandFailed: it ended with an error.
        """
        done = subprocess.run(
            [sys.executable, "-m", "offhook", *arguments, "--json"],
            env=self._environment,
            cwd=self.data_dir,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise CommandFailed(done.returncode, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None
