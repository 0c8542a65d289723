"""The admin token: whoever can read the data directory may administer the server."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

FILE = "admin.token"


def ensure_token(data_dir: Path) -> str:
    """The server's admin token, 256 random bits; made and kept as ``admin.token`` (mode 0600) if need be.

    Args:
        data_dir: the server's data directory, which must exist.

    Raises:
        OSError: the file can be neither read nor written.
    """
    token = read_token(data_dir)
    if token is not None:
        return token
    path = data_dir / FILE
    token = secrets.token_urlsafe(32)
    # Written aside and linked into place: no other process ever reads half a token or replaces this one.
    draft = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token}\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return read_token(data_dir) or token
    finally:
        draft.unlink(missing_ok=True)
    return token


def read_token(data_dir: Path) -> str | None:
    """The admin token kept in a data directory, or None if there is none yet. Raises OSError."""
    try:
        return (data_dir / FILE).read_text().strip() or None
    except FileNotFoundError:
        return None
