"""Programs that write lines: started as child processes, listened to, and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAIT = 30.0


class Program:
    """A program that runs.

    Attributes:
        said: the lines of its standard output so far.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[str] = []

    def write(self, line: str) -> None:
        """Writes a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def end_input(self) -> None:
        """Closes its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end_reading(self) -> None:
        """Closes what reads its standard output."""
        # The process's pipe 1, which asyncio shows in no other way.
        transport = self._process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        transport.close()

    async def says(self, *parts: str) -> str:
        """Waits for a line that has all of these parts; returns it. What comes before it is skipped."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT):
            while line := (await self._process.stdout.readline()).decode():
                self.said.append(line.rstrip("\n"))
                if all(part in line for part in parts):
                    return self.said[-1]
        raise AssertionError(f"it ended without {parts}: {self.said}, {await self.errors()}")

    async def complains(self, part: str) -> None:
        """Waits for a line of its standard error that has this part; those before it are skipped."""
        assert self._process.stderr is not None
        async with asyncio.timeout(WAIT):
            while line := (await self._process.stderr.readline()).decode():
                if part in line:
                    return
        raise AssertionError(f"it ended without {part}")

    async def ends(self) -> int:
        """Waits for its end; returns the exit code, and has read all that it said."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT):
            self.said += (await self._process.stdout.read()).decode().splitlines()
            return await self._process.wait()

    async def errors(self) -> str:
        """What it has written to standard error and nobody has read; once it has ended."""
        assert self._process.stderr is not None
        async with asyncio.timeout(WAIT):
            return (await self._process.stderr.read()).decode()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.signal(signal.SIGINT)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    async def stop(self) -> None:
        """Ends it, however it is."""
        if self._process.returncode is None:
            self._process.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.communicate()


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, without settings of Offhook but these variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")}
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), clean.get("PYTHONPATH"))))
    return {**clean, "PYTHONPATH": path, **variables}


@asynccontextmanager
async def running(*arguments: str | Path, folder: Path, env: Mapping[str, str]) -> AsyncIterator[Program]:
    """Runs Python with these arguments; it is ended at the end of the block if it has not by itself.

    Args:
        arguments: of the interpreter.
        folder: where it runs.
        env: its environment.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=folder, env=env, stdin=pipe, stdout=pipe, stderr=pipe
    )
    program = Program(process)
    try:
        yield program
    finally:
        await program.stop()
