"""Demo users, so that a newcomer has somebody to sign in as."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from offhook.cli.client import AdminClient, open_admin, segment
from offhook.cli.failures import ExitCode, Failure
from offhook.cli.output import DEFAULT_APPLICATION

if TYPE_CHECKING:
    from offhook.domain.values import JsonObject
    from offhook.settings import Settings

USERS = {"alice@example.com": "Alice", "bob@example.com": "Bob"}
"""Username → display name."""
APPLICATION: JsonObject = {"name": DEFAULT_APPLICATION, "domain": "example.com"}
"""The application that a server makes on an empty database."""
FILE = "demo-users.json"


async def demo_users(settings: Settings) -> dict[str, str]:
    """Makes the demo users in the application ``default`` unless they are there.

    Their passwords are random and kept in the data directory, readable by its owner alone, so that the next
    start can show them again.

    Returns:
        Username → password.

    Raises:
        Failure: the data directory cannot be used.
    """
    async with open_admin(settings) as admin:
        passwords, new = _passwords(settings.data_dir)
        await _ensure(admin, f"/applications/{DEFAULT_APPLICATION}", "/applications", APPLICATION)
        users = f"/applications/{DEFAULT_APPLICATION}/users"
        for name, password in passwords.items():
            user = f"{users}/{segment(name)}"
            body: JsonObject = {"name": name, "display_name": USERS[name], "password": password}
            made = await _ensure(admin, user, users, body)
            if new and not made:
                await admin.send("PUT", f"{user}/password", {"password": password})
    return passwords


async def _ensure(admin: AdminClient, one: str, every: str, body: JsonObject) -> bool:
    """Makes something unless it is there. Returns whether it was made."""
    try:
        await admin.get(one)
    except Failure as failure:
        if failure.exit_code is not ExitCode.NOT_FOUND:
            raise
    else:
        return False
    await admin.send("POST", every, body)
    return True


def _passwords(data_dir: Path) -> tuple[dict[str, str], bool]:
    """The demo users' passwords, and whether they were made now because none were kept."""
    path = data_dir / FILE
    try:
        kept: object = json.loads(path.read_text())
    except (OSError, ValueError):
        kept = None
    if isinstance(kept, dict) and all(isinstance(kept.get(name), str) for name in USERS):
        return {name: kept[name] for name in USERS}, False
    passwords = {name: secrets.token_hex(4) for name in USERS}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(passwords, file)
    return passwords, True
