"""``offhook chat`` as people and scripts use it: through pipes, and at a terminal."""

from __future__ import annotations

import asyncio
import itertools
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio
from tests.e2e.programs import WAIT, Program, environment, running

from offhook.testing import FaultProxy, TestServer

PASSWORD = "pässwörd 1"
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[TestServer]:
    async with TestServer() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def alice(server: TestServer) -> str:
    """A user whom no other test has."""
    return await somebody(server, "alice")


@pytest_asyncio.fixture(loop_scope="session")
async def bob(server: TestServer) -> str:
    """Another."""
    return await somebody(server, "bob")


async def somebody(server: TestServer, role: str) -> str:
    """Makes a user with PASSWORD."""
    name = f"{role}-{next(_numbers)}@example.com"
    await server.create_user(name, PASSWORD)
    return name


pytestmark = pytest.mark.asyncio(loop_scope="session")


def chat(
    server: TestServer, folder: Path, user: str, *options: str, url: str | None = None
) -> AbstractAsyncContextManager[Program]:
    """A chat of a user; the password is for the caller to write."""
    arguments = ("-m", "offhook", "chat", user, "--url", url or server.url, *options)
    return running(*arguments, folder=folder, env=environment(OFFHOOK_API_KEY=server.api_key))


@pytest.mark.parametrize("protocol", ["link", "uc"])
async def test_users_write_to_each_other(
    server: TestServer, tmp_path: Path, alice: str, bob: str, protocol: str
) -> None:
    options = ("--protocol", protocol, "--password-stdin")
    async with (
        chat(server, tmp_path, alice, *options, "--to", bob) as alices,
        chat(server, tmp_path, bob, "--password-stdin") as bobs,
    ):
        alices.write(PASSWORD)
        await alices.says(f"* You are here as {alice}.")
        await alices.says(bob, "is not here")
        bobs.write(PASSWORD)
        await bobs.says(f"* You are here as {bob}.")
        await alices.says(bob, "is here")

        alices.write("hello, Bob")
        await bobs.says(f"{alice}: hello, Bob")
        alices.write("//who is a command")
        await bobs.says(f"{alice}: /who is a command")
        bobs.write("to nobody yet")
        await bobs.says("! To whom?")
        bobs.write(f"/to {alice}")
        await bobs.says(alice, "is here")
        bobs.write("hello, Alice")
        await alices.says(f"{bob}: hello, Alice")

        bobs.write("/status away back at 3")
        await bobs.says("away: back at 3")
        await alices.says(bob, "away, back at 3")
        alices.write("/who")
        await alices.says("* Here now:")
        await alices.says(bob, "away, back at 3")

        bobs.write("/quit")
        assert await bobs.ends() == 0
        await alices.says(bob, "is not here")
        alices.write("for when you are back")
        alices.end_input()
        assert await alices.ends() == 0

    async with chat(server, tmp_path, bob, "--password-stdin") as bobs:
        bobs.write(PASSWORD)
        await bobs.says(f"{alice}: for when you are back")
        bobs.end_input()
        assert await bobs.ends() == 0


async def test_chatkitty_shows_who_is_there(server: TestServer, tmp_path: Path, bob: str) -> None:
    async with (
        chat(server, tmp_path, "jane", "--protocol", "chatkitty", "--guest") as jane,
        chat(server, tmp_path, bob, "--protocol", "chatkitty", "--password-stdin", "--to", "jane") as bobs,
    ):
        await jane.says("You are here as jane (guest).")
        await jane.says("channels, which Offhook does not serve yet")
        bobs.write(PASSWORD)
        await bobs.says("jane is here")
        await jane.says(bob, "is here")
        bobs.write("hello")
        await bobs.says("! Messages need channels")
        bobs.write("/status back at 3")
        await bobs.says("You are shown as back at 3.")
        jane.write("/who")
        await jane.says(bob, "back at 3")
        bobs.end_input()
        assert await bobs.ends() == 0
        await jane.says(bob, "is not here")
        jane.interrupt()
        assert await jane.ends() == 0
        assert await jane.errors() == ""


@pytest.mark.parametrize("protocol", ["chatkitty", "link", "uc"])
async def test_refusals_are_one_line(server: TestServer, tmp_path: Path, alice: str, protocol: str) -> None:
    async with chat(server, tmp_path, alice, "--protocol", protocol, "--password-stdin") as alices:
        alices.write("wrong")
        assert await alices.ends() == 1
        (line,) = (await alices.errors()).splitlines()
        assert line.startswith("offhook: ") and "(" in line
    nowhere = "http://127.0.0.1:9"
    async with chat(server, tmp_path, alice, "--protocol", protocol, "--password-stdin", url=nowhere) as alices:
        alices.write("any")
        assert await alices.ends() == 4
        assert len((await alices.errors()).splitlines()) == 1


@pytest.mark.parametrize("protocol", ["chatkitty", "link", "uc"])
async def test_a_lost_connection_comes_back(server: TestServer, tmp_path: Path, bob: str, protocol: str) -> None:
    async with FaultProxy(server.host) as proxy:
        url = f"http://{proxy.host}"
        async with chat(server, tmp_path, bob, "--protocol", protocol, "--password-stdin", url=url) as bobs:
            bobs.write(PASSWORD)
            await bobs.says("You are here")
            proxy.cut()
            await bobs.says("* The connection is lost")
            await bobs.says("* The connection is back")
            bobs.write("/quit")
            assert await bobs.ends() == 0


@pytest.mark.parametrize("protocol", ["chatkitty", "link", "uc"])
async def test_the_server_ends_it(server: TestServer, tmp_path: Path, bob: str, protocol: str) -> None:
    async with chat(server, tmp_path, bob, "--protocol", protocol, "--password-stdin") as bobs:
        bobs.write(PASSWORD)
        await bobs.says("You are here")
        assert await server.end_session(user=bob) == 1
        await bobs.says("! The ")
        assert await bobs.ends() == 1


@pytest.mark.parametrize("protocol", ["chatkitty", "link", "uc"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_leaves_nobody_behind(
    server: TestServer, tmp_path: Path, bob: str, protocol: str, number: signal.Signals
) -> None:
    """The window was closed, for example: nobody is to be shown as here for another hour."""
    async with chat(server, tmp_path, bob, "--protocol", protocol, "--password-stdin") as bobs:
        bobs.write(PASSWORD)
        await bobs.says("You are here")
        bobs.signal(number)
        assert await bobs.ends() == 1
        assert await bobs.errors() == "offhook: Ended by a signal\n"
    assert [session.state for session in await server.sessions(bob)] == ["ended"]


async def test_a_chat_that_nobody_reads_ends(server: TestServer, tmp_path: Path, alice: str, bob: str) -> None:
    async with (
        chat(server, tmp_path, alice, "--password-stdin", "--to", bob) as alices,
        chat(server, tmp_path, bob, "--password-stdin") as bobs,
    ):
        for one in (alices, bobs):
            one.write(PASSWORD)
            await one.says("You are here")
        bobs.end_reading()
        alices.write("is anybody there?")
        assert await bobs.ends() == 1
        assert await bobs.errors() == ""


async def test_a_terminal_with_few_signs(server: TestServer, tmp_path: Path, alice: str, bob: str) -> None:
    arguments = ("-m", "offhook", "chat", bob, "--url", server.url, "--password-stdin")
    async with (
        chat(server, tmp_path, alice, "--password-stdin", "--to", bob) as alices,
        running(*arguments, folder=tmp_path, env=environment(PYTHONIOENCODING="latin-1")) as bobs,
    ):
        for one in (alices, bobs):
            one.write(PASSWORD)
            await one.says("You are here")
        alices.write("1 🙂 2")
        await bobs.says(f"{alice}: 1 ? 2")
        bobs.end_input()
        assert await bobs.ends() == 0
        assert await bobs.errors() == ""


class Terminal:
    """A chat in a pseudo-terminal.

    Attributes:
        process: the program.
        shown: everything it wrote, with what moves the cursor.
    """

    def __init__(self, server: TestServer, folder: Path, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "offhook", "chat", *arguments, "--url", server.url],
            env=environment(TERM="xterm", COLUMNS="100", LINES="30"),
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = bytearray()
        self._seen = 0
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, self._read)

    def type(self, keys: str) -> None:
        """Presses keys."""
        os.write(self._ours, keys.encode())

    async def shows(self, text: str) -> None:
        """Waits until a text was shown, behind what was waited for before."""
        async with asyncio.timeout(WAIT):
            while (found := self.shown.find(text.encode(), self._seen)) < 0:
                self._changed.clear()
                await self._changed.wait()
        self._seen = found + len(text.encode())

    async def ends(self) -> int:
        """Waits for the end; returns the exit code."""
        return await asyncio.to_thread(self.process.wait, WAIT)

    def close(self) -> None:
        """Ends it, however it is."""
        self._loop.remove_reader(self._ours)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def _read(self) -> None:
        try:
            chunk = os.read(self._ours, 65536)
        except OSError:
            # The other end is closed: the program has ended.
            self._loop.remove_reader(self._ours)
            return
        self.shown += chunk
        if b"\x1b[6n" in chunk:
            # It asks where the cursor is.
            os.write(self._ours, b"\x1b[1;1R")
        self._changed.set()


@pytest.mark.parametrize(("keys", "code"), [("\x04", 0), ("\x03", 0), ("half a li\x03", 0), ("/quit\r", 0), ("", 1)])
async def test_at_a_terminal(server: TestServer, tmp_path: Path, alice: str, bob: str, keys: str, code: int) -> None:
    """The password is asked for and not shown; Ctrl-D, Ctrl-C and /quit leave, and the server can end it."""
    terminal = Terminal(server, tmp_path, alice, "--to", bob)
    try:
        # The space is written once nothing is shown any more.
        await terminal.shows(f"Password of {alice}: ")
        terminal.type(f"{PASSWORD}\n")
        await terminal.shows("You are here as")
        await terminal.shows(f"{bob}>")
        terminal.type("/help\r")
        await terminal.shows("is a message; begin it")
        await terminal.shows(f"{bob}>")
        terminal.type("/status busy\r")
        await terminal.shows("You are shown as busy.")
        # Only where there is a prompt do keys mean what they mean to it.
        await terminal.shows(f"{bob}>")
        terminal.type(keys)
        if code:
            await server.end_session(user=alice)
        assert await terminal.ends() == code
        assert (b"The server has ended this: GONE" in terminal.shown) == bool(code)
    finally:
        terminal.close()
    assert PASSWORD.encode() not in terminal.shown
    assert b"Traceback" not in terminal.shown
