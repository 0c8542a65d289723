"""Does what lines say, and shows what happens: the chat, whichever protocol carries it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from offhook.cli.chat.lines import HELP, Help, Order, Quit, Say, Status, To, Watch, Who, Wrong, parse
from offhook.cli.quickstart.report import plain
from offhook.errors import OffhookError


class Screen:
    """What a client of one protocol has to tell.

    Args:
        show: shows a line.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._out = show
        self.unread: BrokenPipeError | None = None
        """Set when nobody reads any more what is shown."""
        self.ended = asyncio.Event()
        """Set when there is no way back."""
        self.failed = False
        """Whether it ended against the user's will."""

    def news(self, text: str) -> None:
        """Something happened."""
        self._show(f"* {plain(text)}")

    def message(self, sender: str, text: str) -> None:
        """Somebody wrote; each line of it is shown as one."""
        for line in text.splitlines() or [""]:
            self._show(f"{plain(sender)}: {plain(line)}")

    def error(self, text: str) -> None:
        """Something did not work."""
        self._show(f"! {plain(text)}")

    def help(self) -> None:
        """What can be typed."""
        for line in HELP:
            self._show(f"  {line}")

    def over(self, text: str) -> None:
        """The session is over, and not because the user wanted it."""
        if not self.ended.is_set():
            self.failed = True
            self.error(text)
            self.ended.set()

    def _show(self, line: str) -> None:
        try:
            self._out(line)
        except BrokenPipeError as error:
            # Here and not where it is called from: that may be the SDK, which hands over what came.
            self.unread = error
            self.ended.set()


class CannotWrite(OffhookError):
    """There are no messages in this protocol, or not yet."""

    code = "cannot_write"


class Chatter(Protocol):
    """A client of one protocol. Its methods raise :class:`~offhook.errors.OffhookError` if they fail."""

    @property
    def notice(self) -> str | None:
        """What the user should know from the beginning, if anything."""
        ...

    async def start(self) -> None:
        """Signs in, and tells of everything from then on."""
        ...

    async def send(self, to: str, text: str) -> None:
        """Sends a message. Raises CannotWrite if the protocol has none."""
        ...

    async def watch(self, user: str) -> None:
        """Tells of a user's coming and going from now on."""
        ...

    async def who(self) -> list[str]:
        """Those who are here, one line each."""
        ...

    async def status(self, word: str, note: str) -> None:
        """Says how the user is."""
        ...

    async def close(self) -> None:
        """Signs out and frees everything."""
        ...


class Room:
    """The chat.

    Args:
        chatter: the user's client.
        screen: where everything is shown.
        to: whom messages go to at first, if anybody.
    """

    def __init__(self, chatter: Chatter, screen: Screen, to: str | None) -> None:
        self._chatter = chatter
        self._screen = screen
        self.to = to

    async def begin(self) -> None:
        """Says what the user should know, and watches whom messages go to."""
        if self._chatter.notice is not None:
            self._screen.news(self._chatter.notice)
        if self.to is not None:
            await self._try(To(self.to))

    async def take(self, line: str) -> bool:
        """Does what a line says; what goes wrong is shown. Returns False if it was to leave."""
        order = parse(line)
        if isinstance(order, Quit):
            return False
        if order is not None:
            await self._try(order)
        return True

    async def _try(self, order: Order) -> None:
        try:
            await self._do(order)
        except OffhookError as error:
            self._screen.error(told(error))

    async def _do(self, order: Order) -> None:
        chatter, screen = self._chatter, self._screen
        match order:
            case Say(text):
                if self.to is None:
                    screen.error("To whom? Say it with /to USER")
                else:
                    await chatter.send(self.to, text)
            case To(user):
                self.to = user
                await chatter.watch(user)
            case Watch(user):
                await chatter.watch(user)
            case Status(word, note):
                await chatter.status(word, note)
            case Who():
                here = await chatter.who()
                screen.news("Here now:" if here else "Nobody is here that you would see.")
                for line in here:
                    screen.news(f"  {line}")
            case Help():
                screen.help()
            case Wrong(text):
                screen.error(text)


def told(error: OffhookError) -> str:
    """An error for people: its words and its code."""
    name = getattr(error, "error", None)
    code = name if isinstance(name, str) else error.code
    return f"{error.message} ({code})"
