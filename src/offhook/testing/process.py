"""``offhook serve`` as a child process, for tests and measurements."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from offhook.errors import OffhookError

READY_TIMEOUT = 30.0
"""Seconds in which a server must be ready."""
STOP_TIMEOUT = 15.0
"""Seconds in which it must end after SIGTERM."""
POLL = 0.02
NEEDED = ("alembic", "sqlalchemy", "starlette", "typer", "uvicorn")
"""Modules that only a server needs, by which it is told whether it is installed."""
LOOSE = {
    f"{name}_{kind}": "1000000"
    for name in ("connect", "denial", "frame", "guess", "request")
    for kind in ("rate", "burst")
}
"""Settings with limits that one machine's clients do not meet, who do in seconds what others do in hours."""
# Below the ports that systems give to outgoing connections, which otherwise might take the server's while it restarts.
_PORTS = range(20000, 32000)
_SOURCE = Path(__file__).parents[2]


def importable() -> dict[str, str]:
    """This program's environment, with which another interpreter finds this package even if it is not installed."""
    path = os.pathsep.join(filter(None, (str(_SOURCE), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


class ServerFailed(OffhookError):
    """The server did not start or end as it should. The message ends with its log."""

    code = "server_failed"


class ServerMissing(ServerFailed):
    """The server is not installed; only the SDK is."""

    code = "server_missing"

    def __init__(self) -> None:
        super().__init__('The server is not installed; it comes with: pip install "offhook[server]"')


class CommandFailed(OffhookError):
    """An ``offhook`` command ended with an error.

    Attributes:
        exit_code: of the command.
        output: what it wrote to standard error.
    """

    code = "command_failed"

    def __init__(self, exit_code: int, output: str) -> None:
        super().__init__(f"exit code {exit_code}: {output}")
        self.exit_code = exit_code
        self.output = output


def free_port(*taken: int) -> int:
    """A port of 127.0.0.1 on which nothing listens now.

    Args:
        taken: ports that are meant for something already.
    """
    # Any process may be looking for one at the same time, so they had better not all begin at the same place.
    for port in random.SystemRandom().sample(_PORTS, 200):
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed("No free port was found")


class ServeProcess:
    """One ``offhook serve`` on ports of its own, which it keeps over restarts.

    Its methods block. It may be used by several threads, but only one of them may start or end it at a time.

    Args:
        data_dir: its data folder; made if it is not there, and kept.
        tls: whether it also serves TLS, with a certificate of its own development authority.
        settings: further settings by name, as ``offhook.toml`` has them.
        functions: the text of a Python module with the applications' functions.
        workers: how many processes serve; more than one need settings for a database and a broker.
        enter: what goes before the command that starts it, to run it elsewhere on this machine, as in a namespace.

    Raises:
        ServerMissing: the server is not installed.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        tls: bool = False,
        settings: Mapping[str, str] | None = None,
        functions: str | None = None,
        workers: int = 1,
        enter: Sequence[str] = (),
    ) -> None:
        if any(importlib.util.find_spec(name) is None for name in NEEDED):
            raise ServerMissing()
        self.data_dir = data_dir
        self.log_file = data_dir / "server.log"
        self.port = free_port()
        self.tls_port = free_port(self.port)
        self._workers = workers
        self._enter = enter
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = threading.Event()
        data_dir.mkdir(parents=True, exist_ok=True)
        given = {
            "data_dir": str(data_dir),
            "host": "127.0.0.1",
            "port": str(self.port),
            "log_format": "json",
            "drain_seconds": "0",
            **({"tls_dev": "true", "tls_port": str(self.tls_port)} if tls else {}),
            **(settings or {}),
        }
        if functions is not None:
            module = data_dir / "application_functions.py"
            module.write_text(functions)
            given["functions"] = str(module)
        self._address = given["host"]
        self._base_path = given.get("base_path", "")
        self._environment = {
            **{name: value for name, value in importable().items() if not name.startswith("OFFHOOK_")},
            **{f"OFFHOOK_{name.upper()}": value for name, value in given.items()},
        }

    @property
    def host(self) -> str:
        """``host:port`` of the plain listener."""
        return f"{self._address}:{self.port}"

    @property
    def tls_host(self) -> str:
        """``host:port`` of the TLS listener."""
        return f"localhost:{self.tls_port}"

    @property
    def url(self) -> str:
        """URL of the plain listener, with the base path if there is one."""
        return f"http://{self.host}{self._base_path}"

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that clients of the TLS listener must trust."""
        return self.data_dir / "tls" / "authority.pem"

    @property
    def admin_token(self) -> str:
        """What the admin API wants as a bearer token."""
        return (self.data_dir / "admin.token").read_text().strip()

    @property
    def pid(self) -> int | None:
        """The process's id, or None while it does not run."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Starts the process and waits until it is ready.

        Raises:
            ServerFailed: it does not become ready, or it runs already.
        """
        if self._process is not None and self._process.poll() is None:
            raise ServerFailed("The server runs already")
        self._given_up.clear()
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [*self._enter, sys.executable, "-m", "offhook", "serve", "--workers", str(self._workers)],
                env=self._environment,
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._process = process
        # A program that comes to its end without having ended its server takes it along; one that is killed cannot.
        weakref.finalize(self, _kill, process)
        try:
            self._wait_ready(process)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """Ends the process with SIGTERM. Nothing happens if there is none.

        Args:
            timeout: seconds after which it is killed.

        Returns:
            Its exit code.

        Raises:
            ServerFailed: it had to be killed.
        """
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """Ends the process with SIGKILL, as a crash does. Nothing happens if there is none."""
        self._end(signal.SIGKILL, STOP_TIMEOUT)

    def restart(self) -> None:
        """Ends the process with SIGTERM and starts it again, on the same ports and data. Raises ServerFailed."""
        self.stop()
        self.start()

    def give_up(self) -> None:
        """Has a :meth:`start` that waits in another thread fail at once."""
        self._given_up.set()

    def log(self) -> str:
        """The last part of what the process wrote."""
        try:
            return self.log_file.read_text(errors="replace")[-8000:]
        except OSError:
            return ""

    def cli(self, *arguments: str, stdin: str | None = None) -> object:
        """Runs ``offhook … --json`` on the same data folder and returns what it printed.

        Raises:
            CommandFailed: it ended with an error.
        """
        done = subprocess.run(  # noqa: S603 - our own module
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

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerFailed(f"The server ended with {process.returncode}:\n{self.log()}")
            if self._given_up.is_set():
                raise ServerFailed("Nobody waits for the server any more")
            if self._answers():
                return
            self._given_up.wait(POLL)
        raise ServerFailed(f"The server is not ready:\n{self.log()}")

    def _answers(self) -> bool:
        try:
            # Without proxies of the environment, which cannot know of this machine's ports.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{self.url}/readyz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

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
            raise ServerFailed(f"The server did not end:\n{self.log()}") from None


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
