"""The answers of UC's tokens and messages (Kandy protocol notes, 2.4, 2.5, 6.2 and 6.3).

Success is an object or list in ``success``. An error is an ``error`` with a ``code`` and a text in ``human``; clients
read both without asking whether they are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from offhook.protocols.kandy.json_text import encode

EARLY_REFRESH_MARGIN = 300
"""Seconds before a token's expiry at which clients refresh it; a token that lives no longer is refreshed in a loop."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part of a message that was uploaded.

    Attributes:
        mime: such as ``application/vdn.kandy.json``.
        url: absolute and without a query: clients append theirs.
        name: of the file.
    """

    mime: str
    url: str
    name: str


@dataclass(frozen=True, slots=True)
class DirectThread:
    """A conversation of two.

    Attributes:
        thread: its id.
        handle: the other user.
        last_received: seconds since 1970 of the last message from the other, or None.
        last_pull: seconds since 1970 of the last message that the user fetched, or None.
        last_message: the text of the last message, or None.
    """

    thread: int
    handle: str
    last_received: int | None = None
    last_pull: int | None = None
    last_message: str | None = None


@dataclass(frozen=True, slots=True)
class GroupThread:
    """A conversation of several.

    Attributes:
        thread: its id.
        members: the others, each by name and by the number that its messages give as their sender.
        last_received, last_pull, last_message: as in :class:`DirectThread`.
    """

    thread: int
    members: tuple[tuple[str, int], ...]
    last_received: int | None = None
    last_pull: int | None = None
    last_message: str | None = None


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message of a thread.

    Attributes:
        id: the same as in its notification.
        text: may be empty.
        incoming: another user sent it.
        sender: the other user's name; in a group its number among the members.
        when: milliseconds since 1970.
        attachments: its parts.
    """

    id: str
    text: str
    incoming: bool
    sender: str | int
    when: int
    attachments: tuple[Attachment, ...] = ()


def tokens(access: str, refresh: str, expires: int) -> bytes:
    """The answer to ``mk_token`` and ``refresh_token``.

    Args:
        access: the access token.
        refresh: the refresh token.
        expires: seconds that the client is to use them.

    Raises:
        ValueError: they are no more than EARLY_REFRESH_MARGIN.
    """
    if expires <= EARLY_REFRESH_MARGIN:
        raise ValueError(f"A token must live longer than {EARLY_REFRESH_MARGIN} seconds")
    return encode({"success": {"access_token": access, "refresh_token": refresh, "expires": expires}})


def failure(code: int, human: str) -> bytes:
    """An error.

    Args:
        code: a status code.
        human: one sentence that clients show.
    """
    return encode({"error": {"code": int(code), "human": human}})


def sent(message_id: str, *, group: int | None = None, attachments: Iterable[Attachment] = ()) -> bytes:
    """The answer to ``send``.

    Args:
        message_id: of the message.
        group: the thread of a message to several users, which clients then need.
        attachments: the parts that were named; none is an empty list.
    """
    success: dict[str, object] = {"id": message_id, "attachments": [_attachment(part) for part in attachments]}
    if group is not None:
        success["group"] = group
    return encode({"success": success})


def threads(rows: Iterable[DirectThread | GroupThread]) -> bytes:
    """The answer to ``threads``, and to ``thread`` without a name."""
    return encode({"success": [_thread(row) for row in rows]})


def messages(rows: Iterable[MessageRow]) -> bytes:
    """The answer to ``thread`` with a name."""
    return encode(
        {
            "success": [
                {
                    "id": row.id,
                    "txt": row.text,
                    "attachments": [_attachment(part) for part in row.attachments],
                    "dir": 0 if row.incoming else 1,
                    "sender": row.sender,
                    "when": row.when,
                }
                for row in rows
            ]
        }
    )


def uploaded(handle: str) -> bytes:
    """The answer to ``upload``: what the message that follows calls the part."""
    return encode({"success": {"handle": handle}})


def done() -> bytes:
    """The answer to ``delete``."""
    return b'{"success":{}}'


def _attachment(part: Attachment) -> dict[str, str]:
    return {"mime": part.mime, "url": part.url, "name": part.name}


def _thread(row: DirectThread | GroupThread) -> dict[str, object]:
    if isinstance(row, DirectThread):
        found: dict[str, object] = {"handle": row.handle, "thread": row.thread, "type": "internal"}
    else:
        names: Sequence[str] = [name for name, _ in row.members]
        numbers = [number for _, number in row.members]
        found = {"handles": names, "members": numbers, "thread": row.thread, "type": "group"}
    if row.last_received is not None:
        found["lastreceived"] = row.last_received
    if row.last_pull is not None:
        found["lastpull"] = row.last_pull
    if row.last_message is not None:
        found["lastmsg"] = row.last_message
    return found
