"""Clients on a real server, with everything they were told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from tests.served import API_KEY, Site, until

from offhook.chatkitty import ChatKitty, CurrentUser, Event, Reconnect, User
from offhook.domain.sessions import Session, SessionState
from offhook.domain.values import PageRequest
from offhook.ports import SessionFilter

QUICK = Reconnect(initial=0.01, maximum=0.05)
E = TypeVar("E")


class Ears:
    """Keeps what a client tells, in order."""

    def __init__(self, kitty: ChatKitty) -> None:
        self.all: list[Event] = []
        for listen in (
            kitty.on_current_user_changed,
            kitty.on_current_user_online,
            kitty.on_current_user_offline,
            kitty.on_user_presence_changed,
            kitty.on_user_updated,
            kitty.on_user_deleted,
            kitty.on_user_blocked,
            kitty.on_user_unblocked,
            kitty.on_resumed,
            kitty.on_session_ended,
        ):
            listen(self.all.append)

    def of(self, kind: type[E]) -> list[E]:
        """The events of a type."""
        return [event for event in self.all if isinstance(event, kind)]

    @property
    def kinds(self) -> list[str]:
        """The types of all events, in order."""
        return [type(event).__name__ for event in self.all]

    async def hear(self, kind: type[E], count: int = 1) -> list[E]:
        """Waits until there are so many events of a type."""
        try:
            await until(lambda: len(self.of(kind)) >= count)
        except TimeoutError:
            raise AssertionError(f"waited in vain for {count} {kind.__name__}, heard {self.all}") from None
        return self.of(kind)


@contextlib.asynccontextmanager
async def kitty_at(
    host: Site | str,
    *,
    api_key: str = API_KEY,
    reconnect: Reconnect = QUICK,
    timeout: float = 10.0,
    heart_beat: tuple[int, int] = (10_000, 10_000),
) -> AsyncIterator[tuple[ChatKitty, Ears]]:
    """A client without a session."""
    address = host if isinstance(host, str) else "{}:{}".format(*host.address)
    async with ChatKitty(
        api_key, host=address, is_secure=False, reconnect=reconnect, timeout=timeout, heart_beat=heart_beat
    ) as kitty:
        yield kitty, Ears(kitty)


@contextlib.asynccontextmanager
async def started(host: Site | str, name: str, **options: float) -> AsyncIterator[tuple[ChatKitty, Ears]]:
    """A client with a session."""
    async with kitty_at(host, **options) as (kitty, ears):  # type: ignore[arg-type]
        (await kitty.start_session(name)).unwrap()
        yield kitty, ears


async def user_named(kitty: ChatKitty, name: str) -> User:
    """Another user, as the client sees them."""
    async for user in (await kitty.list_users()).unwrap().paginator:
        if user.name == name:
            return user
    raise AssertionError(f"there is no {name}")


async def rename(kitty: ChatKitty, display_name: str) -> CurrentUser:
    """Changes the current user's display name."""
    return (await kitty.update_current_user(lambda user: user.replace(display_name=display_name))).unwrap().user


async def sessions(site: Site, name: str) -> Sequence[Session]:
    """All sessions that a user ever had, as the server knows them."""
    return (await site.core.sessions.list(SessionFilter(user_name=name), PageRequest())).items


async def live_sessions(site: Site) -> list[Session]:
    """The sessions that have not ended."""
    found = (await site.core.sessions.list(SessionFilter(), PageRequest())).items
    return [session for session in found if session.state is not SessionState.ENDED]


def other_tasks() -> set[asyncio.Task[object]]:
    """All tasks but this one."""
    return asyncio.all_tasks() - {asyncio.current_task()}
