"""A PostgreSQL server of the test's own, which may be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import psutil

from offhook.testing.process import free_port

PATIENCE = 30.0
ACCOUNT = "postgres"
"""PostgreSQL refuses to be run by root; then it is run by this account of the system."""


def programs() -> Path:
    """The folder with PostgreSQL's programs: of the newest version that is installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    found = folders[-1] if folders else Path(shutil.which("postgres") or "postgres").parent
    assert (found / "initdb").exists(), "PostgreSQL's server is not installed"
    return found


class PostgresServer:
    """A PostgreSQL server on a port of its own, with its data in a folder of its own.

    Attributes:
        url: of its database.
        socket_url: the same, by a socket in the file system, which is there in every network namespace, too.
    """

    def __init__(self) -> None:
        self._bin = programs()
        self._folder = Path(tempfile.mkdtemp(prefix="offhook-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.socket_url = f"postgresql://postgres@/postgres?host={self._folder}&port={self.port}"
        if os.geteuid() == 0:
            shutil.chown(self._folder, ACCOUNT)
        data = self._folder / "data"
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", f"--pgdata={data}")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._bin / program), *arguments]
        return (
            ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups", *command]
            if _is_root()
            else command
        )

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(self._command(program, *arguments), cwd="/", capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Starts it, and waits until it takes connections."""
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder}")
        options = [part for setting in settings for part in ("-c", setting)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", str(self._folder / "data"), *options),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        weakref.finalize(self, _kill, self._process)
        deadline = time.monotonic() + PATIENCE
        while True:
            ready = subprocess.run(
                [str(self._bin / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={self.port}"], timeout=10
            )
            if ready.returncode == 0:
                return
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def kill(self) -> None:
        """Kills it and all its processes at once, as a crash of the machine does, but for what the disk has."""
        process, self._process = self._process, None
        if process is not None:
            _kill(process)

    def stop(self) -> None:
        """Ends it, not waiting for its clients."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)

    def freeze(self, frozen: bool) -> None:
        """Has all its processes stand still, or go on."""
        assert self._process is not None
        for process in _family(self._process.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def log(self) -> str:
        """The last part of what it wrote."""
        return (self._folder / "log").read_text(errors="replace")[-4000:]


@contextlib.contextmanager
def a_postgres_server() -> Iterator[PostgresServer]:
    """A server that lives as long as the context, unless it is killed before."""
    server = PostgresServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _is_root() -> bool:
    return os.geteuid() == 0


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    family = _family(process.pid)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family, PATIENCE)
