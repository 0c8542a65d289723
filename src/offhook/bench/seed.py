"""A data folder with all the users that a measurement needs.

The users are stored as online, as if each had another session elsewhere: else each session that starts would be
announced to all others, and the measurement of starts would be one of deliveries.

Kandy's users have access tokens of a sign-in, made here as the server makes them: what checking a password costs is no
part of what a subscription costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from offhook.core import Core, open_core
from offhook.domain.accounts import Application, SessionPolicy, User
from offhook.domain.sessions import Authentication
from offhook.ports import Transaction
from offhook.services.applications import ApplicationChanges
from offhook.services.logins import ACCESS, LoginToken
from offhook.services.passwords import default_hasher, prepare
from offhook.settings import Settings

PASSWORD = "correct horse"  # noqa: S105 - of users who exist only while something is measured
DOMAIN = "example.com"
DEVICES = 100
"""Sessions that one user may have."""
DAY = 86400.0
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A user of Kandy's clients.

    Attributes:
        name: the username.
        token: an access token.
    """

    name: str
    token: str


@dataclass(frozen=True, slots=True)
class Seeded:
    """What is in the data folder.

    Attributes:
        api_key: of the application.
        guests: usernames of guests.
        members: usernames of users whose password is PASSWORD.
        subscribers: users with an access token.
    """

    api_key: str
    guests: tuple[str, ...]
    members: tuple[str, ...]
    subscribers: tuple[Subscriber, ...] = ()


async def seed(
    data_dir: Path,
    guests: int,
    members: int = 0,
    subscribers: int = 0,
    settings: Mapping[str, str] | None = None,
) -> Seeded:
    """Makes a data folder with an application and its users.

    Args:
        data_dir: an empty folder, or none yet.
        guests: how many guests.
        members: how many users with a password.
        subscribers: how many users with an access token.
        settings: say where the database is and which key signs, if not in the data folder.
    """
    names = tuple(f"guest-{number:06}@{DOMAIN}" for number in range(guests))
    others = tuple(f"member-{number:06}@{DOMAIN}" for number in range(members))
    tokened = tuple(f"subscriber-{number:06}@{DOMAIN}" for number in range(subscribers))
    given = Settings.model_validate({"data_dir": data_dir, "durability": "normal", **(settings or {})})
    async with open_core(given) as core:
        policy = ApplicationChanges(
            sessions=SessionPolicy(max_sessions=DEVICES, leave_grace=DAY, socket_wait=DAY, socket_grace=DAY)
        )
        application, _ = await core.applications.create("bench", domain=DOMAIN, changes=policy)
        hashed = default_hasher().hash(prepare(PASSWORD)) if members else None
        await _add(core, application, names, guest=True)
        await _add(core, application, others, password_hash=hashed)
        ids = await _add(core, application, tokened)
        now = int(datetime.now(UTC).timestamp())
        known = []
        for name, user_id in zip(tokened, ids, strict=True):
            whose = (application.id, user_id, f"{user_id:016x}", Authentication.TOKEN)
            token = LoginToken(ACCESS, *whose, began=now, expires=now + int(DAY))
            known.append(Subscriber(name, token.encode(core.signer, None)))
    return Seeded(application.api_key, names, others, tuple(known))


async def _add(
    core: Core, application: Application, names: Sequence[str], *, guest: bool = False, password_hash: str | None = None
) -> list[int]:
    """Adds users. Returns their ids."""

    def work(tx: Transaction, part: Sequence[str]) -> list[int]:
        now = datetime.now(UTC)
        ids = []
        for name in part:
            user = tx.users.add(User(0, application.id, name, name, now, guest=guest))
            tx.users.set_online(user, True)
            if password_hash is not None:
                tx.users.set_password_hash(user.id, password_hash)
            ids.append(user.id)
        return ids

    ids: list[int] = []
    for start in range(0, len(names), BATCH):
        ids += await core.store.transact(partial(work, part=names[start : start + BATCH]))
    return ids
