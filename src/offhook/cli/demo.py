"""Demo users, so that a newcomer has somebody to sign in as."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from offhook.cli.client import AdminClient, open_admin, segment
from offhook.cli.failures import ExitCode, Failure
from offhook.cli.output import DEFAULT_APPLICATION

if TYPE_CHECKING:
    from offhook.domain.values import JsonObject
    from offhook.settings import Settings

USERS = {"alice": "Alice", "bob": "Bob"}
"""Part of the username before the application's domain → display name."""
APPLICATION: JsonObject = {"name": DEFAULT_APPLICATION, "domain": "example.com"}
"""The application that a server makes on an empty database."""
FILE = "demo-users.json"


async def demo_users(settings: Settings) -> dict[str, str]:
    """Makes the demo users in the application ``default`` unless they are there.

    Their usernames end in the application's domain, by which Kandy's clients are told which application is theirs.
    Their passwords are random and kept in the data directory, readable by its owner alone, so that the next
    start can show them again.

    Returns:
        Username → password.

    Raises:
        Failure: the data directory cannot be used.
    """
    async with open_admin(settings) as admin:
        application = f"/applications/{DEFAULT_APPLICATION}"
        await _ensure(admin, application, "/applications", APPLICATION)
        domain = (await admin.get(application))["domain"]
        names = {f"{name}@{domain}": display_name for name, display_name in USERS.items()}
        passwords, new = _passwords(settings.data_dir, names)
        users = f"{application}/users"
        for name, password in passwords.items():
            user = f"{users}/{segment(name)}"
            body: JsonObject = {"name": name, "display_name": names[name], "password": password}
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


def _passwords(data_dir: Path, names: Collection[str]) -> tuple[dict[str, str], bool]:
    """The demo users' passwords, and whether they were made now because none were kept."""
    path = data_dir / FILE
    try:
        kept: object = json.loads(path.read_text())
    except (OSError, ValueError):
        kept = None
    if isinstance(kept, dict) and all(isinstance(kept.get(name), str) for name in names):
        return {name: kept[name] for name in names}, False
    passwords = {name: secrets.token_hex(4) for name in names}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(passwords, file)
    return passwords, True
