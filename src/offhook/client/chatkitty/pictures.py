"""Files that are sent to a ChatKitty server (ChatKitty protocol notes, 3.6 and 4.7)."""

from __future__ import annotations

import asyncio
import mimetypes
from dataclasses import dataclass, field
from pathlib import Path

from offhook.client.chatkitty.errors import ChatKittyBadAnswer, ChatKittyError, error_of
from offhook.client.transport import Answer

UNTYPED = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class File:
    """A file to upload.

    Attributes:
        content: all of it.
        name: without folders.
        content_type: such as ``image/png``; guessed from the name if None.
    """

    content: bytes = field(repr=False)
    name: str
    content_type: str | None = None

    @property
    def part(self) -> tuple[str, bytes, str]:
        """As the part of a form."""
        return self.name, self.content, self.content_type or mimetypes.guess_type(self.name)[0] or UNTYPED


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """A file that lies elsewhere, and stays there.

    Attributes:
        url: where.
        name: without folders.
        content_type: such as ``image/png``.
        size: in bytes.
    """

    url: str
    name: str
    content_type: str
    size: int

    def members(self) -> dict[str, object]:
        """As an action takes it."""
        return {"url": self.url, "name": self.name, "contentType": self.content_type, "size": self.size}


async def load(file: File | Path) -> File:
    """Reads a file, unless it is in memory.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(file, File):
        return file
    return File(await asyncio.to_thread(file.read_bytes), file.name)


def refusal(answer: Answer) -> ChatKittyError:
    """The error that refused an upload."""
    error = error_of(answer.body)
    if error.error == ChatKittyError.name:
        error = ChatKittyBadAnswer(f"The server refused the file with the status {answer.status}")
    if error.cool_off is None:
        error.cool_off = answer.retry_after
    return error
