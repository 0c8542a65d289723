"""``offhook chat``: what lines mean, where they come from, and what is shown. The chat itself is in tests/e2e."""

from __future__ import annotations

import asyncio
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.support import Cli

from offhook.cli.chat.lines import HELP, Help, Order, Quit, Say, Status, To, Watch, Who, Wrong, parse
from offhook.cli.chat.room import CannotWrite, Room, Screen, told
from offhook.cli.chat.terminal import MAX_LINE, PipedLines, each
from offhook.client.errors import ConnectionLost


@pytest.mark.parametrize(
    ("line", "order"),
    [
        ("", None),
        ("   ", None),
        ("hello", Say("hello")),
        ("  a/b  ", Say("a/b")),
        ("//who", Say("/who")),
        ("/who", Who()),
        ("/help", Help()),
        ("/quit ", Quit()),
        ("/to bob@example.com", To("bob@example.com")),
        ("/watch  bob", Watch("bob")),
        ("/status away", Status("away", "")),
        ("/status away  back at 3", Status("away", "back at 3")),
    ],
)
def test_lines_and_their_meaning(line: str, order: Order | None) -> None:
    assert parse(line) == order


@pytest.mark.parametrize("line", ["/", "/nonsense", "/to", "/to a b", "/watch", "/status", "/quit now", "/who bob"])
def test_lines_without_meaning_are_told(line: str) -> None:
    assert isinstance(parse(line), Wrong)


@given(st.text())
def test_every_line_is_something_or_empty(line: str) -> None:
    assert (parse(line) is None) == (not line.strip())


async def all_of(lines: PipedLines) -> list[str]:
    found = []
    async with asyncio.timeout(10):
        while (line := await lines.next()) is not None:
            found.append(line)
    return found


async def test_the_password_is_the_first_line_and_nothing_behind_it_is_lost() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as source, open(writing, "wb", buffering=0) as sink:
        sink.write(b"secret\r\nfirst\nsec")
        lines = PipedLines(source)
        assert lines.first() == "secret"
        waiting = asyncio.create_task(all_of(lines))
        sink.write(b"ond\n\nZo\xc3\xab\n\xff\nlast")
        sink.close()
        assert await waiting == ["first", "second", "", "Zoë", "�", "last"]


async def test_lines_held_in_memory() -> None:
    lines = PipedLines(io.BytesIO(b"a\nb"))
    assert await all_of(lines) == ["a", "b"]
    assert PipedLines(io.BytesIO(b"")).first() is None


async def test_a_line_without_end_is_cut() -> None:
    found = await all_of(PipedLines(io.BytesIO(b"x" * (2 * MAX_LINE + 1))))
    assert "".join(found) == "x" * (2 * MAX_LINE + 1)
    assert max(map(len, found)) <= 2 * MAX_LINE and len(found) >= 2


async def test_the_end_of_the_session_ends_the_wait_for_a_line() -> None:
    reading, writing = os.pipe()
    ended = asyncio.Event()
    taken: list[str] = []

    async def take(line: str) -> bool:
        taken.append(line)
        ended.set()
        return True

    with open(reading, "rb") as source, open(writing, "wb", buffering=0) as sink:
        sink.write(b"one\n")
        async with asyncio.timeout(10):
            await each(PipedLines(source), take, ended)
        assert taken == ["one"]


async def test_each_stops_when_it_is_told_to() -> None:
    taken: list[str] = []

    async def take(line: str) -> bool:
        taken.append(line)
        return line != "stop"

    async with asyncio.timeout(10):
        await each(PipedLines(io.BytesIO(b"go\nstop\nnever")), take, asyncio.Event())
    assert taken == ["go", "stop"]


class Notebook:
    """A way to be there without a server: it writes down what it is asked."""

    notice: str | None = None

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.here: list[str] = []

    async def start(self) -> None:
        self.asked.append(("start",))

    async def send(self, to: str, text: str) -> None:
        if text == "lost":
            raise ConnectionLost(1006)
        self.asked.append(("send", to, text))

    async def watch(self, user: str) -> None:
        self.asked.append(("watch", user))

    async def who(self) -> list[str]:
        return self.here

    async def status(self, word: str, note: str) -> None:
        self.asked.append(("status", word, note))

    async def close(self) -> None:
        self.asked.append(("close",))


async def test_the_room_does_what_lines_say() -> None:
    shown: list[str] = []
    notebook = Notebook()
    room = Room(notebook, Screen(shown.append), None)
    await room.begin()
    assert await room.take("hello")
    assert shown.pop() == "! To whom? Say it with /to USER"
    assert await room.take("/to bob")
    assert await room.take("hello")
    assert await room.take("")
    assert await room.take("/status away back at 3")
    assert await room.take("lost")
    assert shown.pop() == "! The connection was closed with code 1006 (connection_lost)"
    assert await room.take("/watch carol")
    assert notebook.asked == [
        ("watch", "bob"),
        ("send", "bob", "hello"),
        ("status", "away", "back at 3"),
        ("watch", "carol"),
    ]
    assert await room.take("/who")
    notebook.here = ["bob (away)"]
    assert await room.take("/who")
    assert shown == ["* Nobody is here that you would see.", "* Here now:", "*   bob (away)"]
    shown.clear()
    assert await room.take("/help")
    assert len(shown) == len(HELP)
    assert await room.take("/nonsense")
    assert shown[-1] == "! There is no command /nonsense; see /help"
    assert not await room.take("/quit")


async def test_what_is_shown_does_not_steer_a_terminal() -> None:
    shown: list[str] = []
    screen = Screen(shown.append)
    screen.message("eve\x1b[1m", "one\ntwo\x07\n")
    screen.message("eve", "")
    assert shown == ["eve�[1m: one", "eve�[1m: two�", "eve: "]


async def test_a_session_is_over_once() -> None:
    shown: list[str] = []
    screen = Screen(shown.append)
    screen.over("first")
    screen.over("second")
    assert shown == ["! first"]
    assert screen.failed and screen.ended.is_set()


async def test_a_chat_that_nobody_reads_is_over() -> None:
    def show(line: str) -> None:
        raise BrokenPipeError

    screen = Screen(show)
    screen.message("bob", "hello")
    assert isinstance(screen.unread, BrokenPipeError)
    assert screen.ended.is_set()


def test_errors_are_told_with_their_code() -> None:
    assert told(CannotWrite("No messages")) == "No messages (cannot_write)"


def test_a_password_that_is_no_text_is_not_guessed(offhook: Cli) -> None:
    outcome = offhook("chat", "jane", "--password-stdin", stdin=b"p\xe4ss\n")
    assert outcome.code == 2
    assert outcome.err == "offhook: The password on standard input must be UTF-8\n"


def test_wrong_usage_exits_with_2(offhook: Cli) -> None:
    for arguments, stdin, word in (
        (["--url", "nowhere"], "", "no URL"),
        ([], "", "no terminal to ask"),
        (["--password-stdin"], "", "no password"),
        (["--guest"], "", "--guest is for"),
        (["--protocol", "chatkitty", "--guest", "--password-stdin"], "x\n", "--guest is for"),
        (["--protocol", "chatkitty", "--password-stdin", "--url", "http://127.0.0.1:9"], "x\n", "--api-key"),
    ):
        outcome = offhook("chat", "jane", *arguments, stdin=stdin)
        assert outcome.code == 2 and word in outcome.err, arguments
        assert len(outcome.err.splitlines()) == 1
