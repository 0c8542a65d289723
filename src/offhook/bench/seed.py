"""A data folder with all the users that a measurement needs.

The users are stored as online, as if each had another session elsewhere: else each session that starts would be
announced to all others, and the measurement of starts would be one of deliveries.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from offhook.app import open_core
from offhook.domain.accounts import Application, SessionPolicy, User
from offhook.ports import Transaction
from offhook.services.applications import ApplicationChanges
from offhook.services.passwords import default_hasher, prepare
from offhook.settings import Settings

PASSWORD = "correct horse"  # noqa: S105 - of users who exist only while something is measured
DAY = 86400.0
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Seeded:
    """What is in the data folder.

    Attributes:
        api_key: of the application.
        guests: usernames of guests.
        members: usernames of users whose password is PASSWORD.
    """

    api_key: str
    guests: tuple[str, ...]
    members: tuple[str, ...]


async def seed(data_dir: Path, guests: int, members: int = 0) -> Seeded:
    """Makes a data folder with an application and its users.

    Args:
        data_dir: an empty folder, or none yet.
        guests: how many guests.
        members: how many users with a password.
    """
    names = tuple(f"guest-{number:06}@example.com" for number in range(guests))
    others = tuple(f"member-{number:06}@example.com" for number in range(members))
    settings = Settings(data_dir=data_dir, durability="normal")
    async with open_core(settings) as core:
        policy = ApplicationChanges(sessions=SessionPolicy(leave_grace=DAY))
        application, _ = await core.applications.create("bench", changes=policy)
        hashed = default_hasher().hash(prepare(PASSWORD)) if members else None
        for start in range(0, guests, BATCH):
            part = names[start : start + BATCH]
            await core.store.transact(lambda tx, part=part: _add(tx, application, part, None))  # type: ignore[misc]
        await core.store.transact(lambda tx: _add(tx, application, others, hashed))
    return Seeded(application.api_key, names, others)


def _add(tx: Transaction, application: Application, names: tuple[str, ...], hashed: str | None) -> None:
    now = datetime.now(UTC)
    for name in names:
        user = tx.users.add(User(0, application.id, name, name, now, guest=hashed is None))
        tx.users.set_online(user, True)
        if hashed is not None:
            tx.users.set_password_hash(user.id, hashed)
