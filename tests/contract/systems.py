"""The systems under contract: a store and a broker on the same durable state, which can be opened again and again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from offhook.broker import NodeBroker
from offhook.broker.journal import Journal
from offhook.broker.memory import MemoryBroker
from offhook.domain.accounts import Application, User
from offhook.domain.sessions import Authentication, Client, Session, SessionState
from offhook.ports import Broker, Command, Handlers, Publication, Store
from offhook.storage import SQLiteStore
from offhook.storage.postgres import PostgresStore

START = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
NODE = "node-1"


class ManualClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@dataclass
class System:
    """An open store and broker. The broker is started as NODE; what it hears is in ``heard`` and ``commands``."""

    store: Store
    broker: Broker
    heard: list[Publication] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)

    async def close(self) -> None:
        await self.broker.close()
        await self.store.close()

    # What nearly every test needs.

    async def application(self, name: str = "app") -> Application:
        return await self.store.transact(lambda tx: tx.applications.add(an_application(name)))

    async def user(self, application: Application, name: str = "alice") -> User:
        return await self.store.transact(lambda tx: tx.users.add(a_user(application.id, name)))

    async def users(self, application: Application, *names: str) -> list[User]:
        return await self.store.transact(lambda tx: [tx.users.add(a_user(application.id, name)) for name in names])


class Engine(Protocol):
    """An implementation, with one durable state."""

    clock: ManualClock

    async def open(self, *, history_size: int = 1000, history_seconds: float = 3600.0) -> System:
        """Opens the state; what was opened before must be closed."""

    def child(self) -> Sequence[str]:
        """The command of a process that does what ``child.py`` says on the same state."""

    def remove(self) -> None:
        """Removes the state."""


OnCommit = Callable[[Sequence[Publication]], None]


class StoreEngine:
    """A store and the in-process broker."""

    clock: ManualClock

    async def open(self, *, history_size: int = 1000, history_seconds: float = 3600.0) -> System:
        store = await self.store(lambda publications: broker.deliver(publications), history_size, history_seconds)
        broker = self.broker(store.journal)
        system = System(store, broker)
        broker.start(NODE, Handlers(publication=system.heard.append, command=system.commands.append))
        return system

    async def store(
        self, on_commit: OnCommit, history_size: int, history_seconds: float
    ) -> SQLiteStore | PostgresStore:
        """Opens the store."""
        raise NotImplementedError

    def broker(self, journal: Journal) -> NodeBroker:
        """Makes the broker."""
        return MemoryBroker(journal)


class SQLiteEngine(StoreEngine):
    """The SQLite store and the in-process broker."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "offhook.db"
        self.clock = ManualClock()

    async def store(self, on_commit: OnCommit, history_size: int, history_seconds: float) -> SQLiteStore:
        return await SQLiteStore.open(
            self.path, on_commit, history_size=history_size, history_seconds=history_seconds, clock=self.clock
        )

    def child(self) -> Sequence[str]:
        return [sys.executable, str(Path(__file__).with_name("child.py")), "sqlite", str(self.path.parent)]

    def remove(self) -> None:
        """The folder is whoever's gave it."""


def an_application(name: str = "app", **values: object) -> Application:
    fields: dict[str, object] = {
        "id": 0,
        "name": name,
        "domain": f"{name}.example",
        "api_key": f"key-{name}",
        "client_id": f"id-{name}",
        "client_secret_hash": "0" * 64,
        "created_at": START,
    }
    return Application(**(fields | values))  # type: ignore[arg-type]


def a_user(application_id: int, name: str = "alice", **values: object) -> User:
    fields: dict[str, object] = {
        "id": 0,
        "application_id": application_id,
        "name": name,
        "display_name": name,
        "created_at": START,
    }
    return User(**(fields | values))  # type: ignore[arg-type]


def a_session(user: User, **values: object) -> Session:
    fields: dict[str, object] = {
        "id": 0,
        "application_id": user.application_id,
        "user_id": user.id,
        "user_name": user.name,
        "client": Client("chatkitty", "ChatKitty-JS-Core/1.3.5", "127.0.0.1", True),
        "authentication": Authentication.GUEST,
        "state": SessionState.ACTIVE,
        "generation": 1,
        "node": NODE,
        "started_at": START,
        "connected_at": START,
    }
    return Session(**(fields | values))  # type: ignore[arg-type]
