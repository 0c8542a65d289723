"""What a person types, and what it means."""

from __future__ import annotations

from dataclasses import dataclass

HELP = (
    "/to USER         write to somebody else from now on",
    "/who             who is here",
    "/watch USER      tell when somebody comes or goes",
    "/status WORD …   say how you are: /status away back at 3",
    "/help            this",
    "/quit            leave; so does Ctrl-D",
    "anything else    is a message; begin it with // for one that begins with /",
)
"""Every command, for people."""


@dataclass(frozen=True, slots=True)
class Say:
    """Send a message."""

    text: str


@dataclass(frozen=True, slots=True)
class To:
    """Choose whom messages go to."""

    user: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Tell of somebody's coming and going."""

    user: str


@dataclass(frozen=True, slots=True)
class Status:
    """Say how one is.

    Attributes:
        word: the first word, such as ``away``.
        note: what follows it.
    """

    word: str
    note: str


@dataclass(frozen=True, slots=True)
class Who:
    """List who is here."""


@dataclass(frozen=True, slots=True)
class Help:
    """List the commands."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """A command that is none, or lacks something.

    Attributes:
        text: what to tell.
    """

    text: str


Order = Say | To | Watch | Status | Who | Help | Quit | Wrong

_BARE: dict[str, Order] = {"/who": Who(), "/help": Help(), "/quit": Quit()}


def parse(line: str) -> Order | None:
    """What a line means; None if it is empty.

    Args:
        line: as typed, without the end of the line.
    """
    text = line.strip()
    if not text:
        return None
    if not text.startswith("/") or text.startswith("//"):
        return Say(text.removeprefix("/") if text.startswith("//") else text)
    return _command(text)


def _command(text: str) -> Order:
    command, _, rest = text.partition(" ")
    rest = rest.strip()
    match command:
        case "/who" | "/help" | "/quit" if not rest:
            return _BARE[command]
        case "/to" | "/watch":
            if not rest or " " in rest:
                return Wrong(f"{command} needs one username: {command} bob@example.com")
            return To(rest) if command == "/to" else Watch(rest)
        case "/status":
            word, _, note = rest.partition(" ")
            return Status(word, note.strip()) if word else Wrong("/status needs a word: /status away back at 3")
    return Wrong(f"There is no command {text}; see /help")
