"""What the tests of services share: a core on a clock that can be moved, and connections that only keep a record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from offhook.codes import CloseReason, EndReason
from offhook.core import Core
from offhook.domain.accounts import Application, UserChanges
from offhook.domain.events import MessageSent, UserEvent
from offhook.domain.messages import Message
from offhook.domain.sessions import Client, Session, StoryKind
from offhook.domain.values import PageRequest
from offhook.ports import Publication, SessionFilter
from offhook.services.applications import ApplicationChanges
from offhook.services.hub import LiveSession

CLIENT = Client("chatkitty", "test/1", "192.0.2.7")
WAIT = 5.0


@dataclass(eq=False)
class Outlet:
    """A connection that keeps what it is told."""

    heard: list[Publication] = field(default_factory=list)
    ends: list[tuple[EndReason, str]] = field(default_factory=list)
    drops: list[CloseReason] = field(default_factory=list)
    changes: int = 0

    def deliver(self, publication: Publication) -> None:
        self.heard.append(publication)

    async def ready(self) -> None:
        """It keeps whatever it gets."""

    def ended(self, reason: EndReason, text: str) -> None:
        self.ends.append((reason, text))

    def drop(self, reason: CloseReason) -> None:
        self.drops.append(reason)

    def gap(self) -> None:
        raise AssertionError("nothing is lost here")

    def changed(self) -> None:
        self.changes += 1

    def saved(self, proof: int) -> None:
        """It does not care."""

    @property
    def events(self) -> list[UserEvent]:
        """What it heard of users, without the places."""
        events = [publication.event for publication in self.heard]
        return [event for event in events if not isinstance(event, MessageSent)]

    @property
    def messages(self) -> list[Message]:
        """The messages it heard."""
        events = [publication.event for publication in self.heard]
        return [event.message for event in events if isinstance(event, MessageSent)]

    def names(self, kind: type[UserEvent]) -> list[str]:
        """The display names in the events of one kind, in the order in which they came."""
        return [event.user.display_name for event in self.events if type(event) is kind]


@dataclass(eq=False)
class Stay:
    """A session and its connection."""

    live: LiveSession
    outlet: Outlet

    @property
    def id(self) -> int:
        return self.live.id


async def start(core: Core, name: str, application: Application | None = None, **auth_params: str) -> Stay:
    """Starts a session whose client is ready for events at once."""
    outlet = Outlet()
    where = application or await core.applications.get("default")
    live = await core.sessions.start(where, name, dict(auth_params), CLIENT, outlet)
    await core.hub.release(live)
    return Stay(live, outlet)


async def resume(core: Core, stay: Stay, name: str, *, release: bool = True) -> Stay | None:
    """Resumes a session with the token that its client has."""
    outlet = Outlet()
    application = await core.applications.get("default")
    live = await core.sessions.resume(application, name, core.sessions.token_of(stay.live), CLIENT, outlet)
    if live is None:
        return None
    if release:
        await core.hub.release(live)
    return Stay(live, outlet)


async def lose(core: Core, stay: Stay, reason: CloseReason = CloseReason.PEER_LOST) -> None:
    """Breaks a session's connection."""
    await core.sessions.suspend(stay.live, reason)


async def set_policy(core: Core, **changes: object) -> Application:
    """Changes the default application's session policy, and returns the application as it is then."""
    before = await core.applications.get("default")
    policy = replace(before.sessions, **changes)  # type: ignore[arg-type]
    return await core.applications.change("default", ApplicationChanges(sessions=policy))


async def rename(core: Core, name: str, *display_names: str) -> None:
    """Gives a user one display name after the other."""
    application = await core.applications.get("default")
    user = await core.users.by_name(application, name)
    for display_name in display_names:
        await core.users.change(application, user.id, UserChanges(display_name=display_name))


async def sessions_of(core: Core, name: str, *, live: bool | None = None) -> Sequence[Session]:
    """A user's sessions, oldest first."""
    page = await core.sessions.list(SessionFilter(user_name=name, live=live), PageRequest(size=500))
    return list(reversed(page.items))


async def story_of(core: Core, session_id: int) -> list[StoryKind]:
    """The kinds of a session's story."""
    return [entry.kind for entry in (await core.sessions.show(session_id)).story]


async def until(condition: Callable[[], bool]) -> None:
    """Waits until a condition is true."""
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.002)
