"""The session: one client's stay, as a lease with a state machine.

::

    starting ──activate──► active ◄──resume── suspended
        │     or resume      │  └──suspend──────►  │
        └───────end──────────┴──────────end────────┘──► ended

A session is *starting* until it has its first connection, *active* while it has one, *suspended* while it waits for a
new one, and ends exactly once, for exactly one reason. One that began with its connection is activated at once; one
that was made by a request of its own (a subscription) is stored as starting, and its first connection resumes it.

Each connection has a *generation*, one higher than the one before; whatever arrives from an older generation is void
(fencing). An active session lives as long as the lease of the node that holds its connection: when the node dies, its
sessions count as suspended from the moment its lease ran out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from offhook.codes import CloseReason, EndReason
from offhook.domain.accounts import SessionPolicy
from offhook.domain.events import Topic
from offhook.errors import Conflict


class SessionState(StrEnum):
    STARTING = "starting"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    ENDED = "ended"


class Authentication(StrEnum):
    """How the user of a session proved who they are."""

    GUEST = "guest"
    PASSWORD = "password"  # noqa: S105 - a kind of proof, not a secret
    TOKEN = "token"  # noqa: S105
    FUNCTION = "function"


@dataclass(frozen=True, slots=True)
class Client:
    """What a client said of itself, and where it came from.

    Attributes:
        protocol: ``chatkitty`` or ``kandy``.
        agent: its product token, e.g. ``ChatKitty-JS-Core/1.3.5``; empty if it named none.
        address: the IP address it came from, as far as trusted proxies tell.
        secure: whether it came over TLS.
    """

    protocol: str
    agent: str
    address: str
    secure: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """One session as stored, living or past.

    Attributes:
        id: integer, unique on the server.
        application_id: its application.
        user_id: its user.
        user_name: the username when it started; outlives the user.
        client: the client, as of the latest connection.
        authentication: how the user proved who they are.
        state: see the module's text.
        generation: counts the connections, from 1; 0 before the first.
        node: the node that holds the connection, or held the last one.
        started_at: UTC.
        connected_at: when the latest connection was made.
        suspended_at: when the connection broke; None while active.
        leave_at: while suspended, when the user stops counting as online through this session.
        resumable_until: while starting or suspended, when the session ends for good.
        ended_at: UTC, or None.
        end_reason: why it ended, or None.
        resumes: how often it was resumed.
        positions: topic → offset up to which the client has seen that topic.
        epoch: of the positions.
        expires_at: when the session ends unless its client renews it, connected or not; None if it need not.
        announces: whether the user counts as online through it.
    """

    id: int
    application_id: int
    user_id: int
    user_name: str
    client: Client
    authentication: Authentication
    state: SessionState
    generation: int
    node: str
    started_at: datetime
    connected_at: datetime
    suspended_at: datetime | None = None
    leave_at: datetime | None = None
    resumable_until: datetime | None = None
    ended_at: datetime | None = None
    end_reason: EndReason | None = None
    resumes: int = 0
    positions: Mapping[Topic, int] = field(default_factory=dict)
    epoch: str = ""
    expires_at: datetime | None = None
    announces: bool = True

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state is not SessionState.ENDED

    def online(self, now: datetime) -> bool:
        """Whether the user counts as online through this session."""
        if not self.announces:
            return False
        if self.state is SessionState.ACTIVE:
            return True
        return self.live and self.leave_at is not None and now < self.leave_at


class StoryKind(StrEnum):
    """What can happen to a session, as its story tells it."""

    STARTED = "started"
    CONNECTED = "connected"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class StoryEntry:
    """One line of a session's story.

    Attributes:
        at: when, UTC.
        kind: what happened.
        reason: the EndReason or CloseReason, or empty.
        detail: for people, e.g. the address of a new connection.
    """

    at: datetime
    kind: StoryKind
    reason: str = ""
    detail: str = ""


def activate(session: Session) -> Session:
    """The session's first connection is accepted.

    Raises:
        Conflict: it is not starting.
    """
    _expect(session, SessionState.STARTING)
    return replace(session, state=SessionState.ACTIVE)


def suspend(session: Session, at: datetime, policy: SessionPolicy) -> Session:
    """The session's connection broke at ``at``.

    Raises:
        Conflict: it is not active.
    """
    _expect(session, SessionState.ACTIVE)
    if session.expires_at is None:
        grace, until = policy.leave_grace, at + timedelta(seconds=policy.resume_window)
    else:
        grace, until = policy.socket_grace, session.expires_at
    return replace(
        session,
        state=SessionState.SUSPENDED,
        suspended_at=at,
        leave_at=min(at + timedelta(seconds=grace), until),
        resumable_until=until,
    )


def renew(session: Session, expires_at: datetime) -> Session:
    """The client of a session that expires wants it to go on until ``expires_at``.

    One that waits for its first connection does not wait longer for that.

    Raises:
        Conflict: it has ended.
    """
    _expect(session, SessionState.STARTING, SessionState.ACTIVE, SessionState.SUSPENDED)
    until = expires_at if session.state is SessionState.SUSPENDED else session.resumable_until
    return replace(session, expires_at=expires_at, resumable_until=until)


def resume(session: Session, at: datetime, node: str, client: Client) -> Session:
    """A newer connection takes the session over, whether or not the older one is known to be gone.

    Raises:
        Conflict: it has ended, or its time to be resumed is over.
    """
    _expect(session, SessionState.STARTING, SessionState.ACTIVE, SessionState.SUSPENDED)
    for until in (session.resumable_until, session.expires_at):
        if until is not None and at >= until:
            raise Conflict("The session can no longer be resumed")
    return replace(
        session,
        state=SessionState.ACTIVE,
        generation=session.generation + 1,
        resumes=session.resumes + (session.state is not SessionState.STARTING),
        node=node,
        client=client,
        connected_at=at,
        suspended_at=None,
        leave_at=None,
        resumable_until=None,
    )


def revive(session: Session, at: datetime, node: str) -> Session:
    """The session's connection turns out to be there: it was only thought to be lost.

    Raises:
        Conflict: it is not suspended, or its time to be resumed is over.
    """
    _expect(session, SessionState.SUSPENDED)
    if session.resumable_until is not None and at >= session.resumable_until:
        raise Conflict("The session can no longer be resumed")
    return replace(
        session, state=SessionState.ACTIVE, node=node, suspended_at=None, leave_at=None, resumable_until=None
    )


def overdue(session: Session, at: datetime) -> EndReason | None:
    """Why a session is to end at a time, if nothing else happens before; None if it may go on."""
    if session.expires_at is not None and session.expires_at <= at:
        return EndReason.NOT_RENEWED
    if session.resumable_until is not None and session.resumable_until <= at:
        return EndReason.NOT_CONNECTED if session.state is SessionState.STARTING else EndReason.LEASE_EXPIRED
    return None


def end(session: Session, at: datetime, reason: EndReason) -> Session:
    """The session is over.

    Raises:
        Conflict: it has ended already.
    """
    _expect(session, SessionState.STARTING, SessionState.ACTIVE, SessionState.SUSPENDED)
    return replace(
        session, state=SessionState.ENDED, ended_at=at, end_reason=reason, leave_at=None, resumable_until=None
    )


def story_of_close(reason: CloseReason, detail: str, at: datetime) -> StoryEntry:
    """The story's line for a connection that broke."""
    return StoryEntry(at, StoryKind.SUSPENDED, reason.value, detail)


def _expect(session: Session, *states: SessionState) -> None:
    if session.state not in states:
        raise Conflict(f"The session is {session.state.value}")
