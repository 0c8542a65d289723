"""How a session starts: what the transaction that starts one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from offhook.codes import EndReason
from offhook.domain import sessions as rules
from offhook.domain.accounts import Application, DuplicatePolicy, SessionPolicy, User, UserChanges
from offhook.domain.events import application_topic, user_topic
from offhook.domain.sessions import Authentication, Client, Session, SessionState, StoryEntry, StoryKind
from offhook.errors import SessionLimitReached
from offhook.ports import Clock, Transaction
from offhook.services.authentication import Verdict, admit, merge, newcomer
from offhook.services.presence import arrive, leave

SETTLING = 10.0
"""Seconds for which a new session counts as connected although its connection is still to come."""
NOBODY_ID = 0
ANONYMOUS = "anonymous"
"""Under this name, sessions of people without an account are in the ledger."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What the transaction that starts a session did.

    Attributes:
        user: its user.
        session: the session.
        ended: sessions that had to end for it; to be told with ``tell_replaced`` after the transaction.
    """

    user: User
    session: Session
    ended: Sequence[Session]


@dataclass(frozen=True, slots=True)
class Lease:
    """How a session begins that is made before it has a connection.

    Attributes:
        seconds: until it ends, unless it is renewed.
        announces: whether the user will count as online through it.
        force: whether it may end the user's oldest session, should there be too many, whatever the policy.
    """

    seconds: float
    announces: bool
    force: bool


class Starter:
    """Starts sessions within transactions.

    Args:
        clock: the time.
        node: the node on which they start.
    """

    def __init__(self, clock: Clock, node: str) -> None:
        self._clock = clock
        self._node = node

    def begin(
        self,
        tx: Transaction,
        application: Application,
        username: str,
        verdict: Verdict,
        client: Client,
        lease: Lease | None = None,
    ) -> Begun:
        """Starts a session within a transaction; give what is returned to ``SessionService.tell_begun`` after it.

        Args:
            tx: the transaction.
            application: where.
            username: whose.
            verdict: how the user proved who they are.
            client: what is known of the client.
            lease: for a session whose connection is still to come; else it has one, and is active at once.

        Raises:
            AccessDenied: the user is disabled, or has too many sessions.
        """
        now = self._clock.now()
        user = tx.users.by_name(application.id, username)
        if user is None:
            user = tx.users.add(newcomer(application, username, verdict, now))
            earlier: Sequence[Session] = ()
        else:
            by_password = verdict.authentication is Authentication.PASSWORD
            admit(application, verdict, user, tx.users.password_hash(user.id) if by_password else None)
            earlier = tx.sessions.live_of(user.id)
        ended: list[Session] = []
        if verdict.authentication is Authentication.TOKEN and user.guest:
            # The name is this person's; whoever went by it as a guest has to leave.
            user = tx.users.change(user, UserChanges(guest=False))
            guests = [old for old in earlier if old.authentication is Authentication.GUEST]
            earlier = [old for old in earlier if old not in guests]
            ended += [_close(tx, old, now, EndReason.CREDENTIALS_CHANGED) for old in guests]
        force = lease is not None and lease.force
        surplus = _make_room(earlier, application.sessions, force, now)
        ended += [_close(tx, old, now, EndReason.REPLACED) for old in surplus]
        if verdict.authentication is Authentication.FUNCTION and verdict.profile is not None:
            user = merge(tx, user, verdict.profile)
        if lease is None:
            user = arrive(tx, user)
        session = self._new(tx, application, user, verdict.authentication, client, now)
        if lease is None:
            everybody = application_topic(application.id)
            positions = {**session.positions, everybody: tx.head(everybody).offset}
            session = rules.activate(replace(session, generation=1, positions=positions))
        else:
            session = self._waiting(session, user, application.sessions, lease, now)
        session = tx.sessions.add(session)
        if lease is not None and ended:
            leave(tx, application.id, user.id, now)
        return Begun(user, session, ended)

    def begin_anonymous(self, tx: Transaction, application: Application, client: Client, lease: Lease) -> Begun:
        """Starts a session of somebody without an account within a transaction; see ``begin``."""
        now = self._clock.now()
        nobody = anonymous(application, now)
        session = self._new(tx, application, nobody, Authentication.GUEST, client, now)
        return Begun(nobody, tx.sessions.add(self._waiting(session, nobody, application.sessions, lease, now)), ())

    def _new(
        self,
        tx: Transaction,
        application: Application,
        user: User,
        authentication: Authentication,
        client: Client,
        now: datetime,
    ) -> Session:
        head = tx.head(user_topic(user.id))
        return Session(
            id=0,
            application_id=application.id,
            user_id=user.id,
            user_name=user.name,
            client=client,
            authentication=authentication,
            state=SessionState.STARTING,
            generation=0,
            node=self._node,
            started_at=now,
            connected_at=now,
            positions={user_topic(user.id): head.offset},
            epoch=head.epoch,
        )

    @staticmethod
    def _waiting(session: Session, user: User, policy: SessionPolicy, lease: Lease, now: datetime) -> Session:
        """The session while it waits for its first connection."""
        expires = now + timedelta(seconds=lease.seconds)
        until = min(expires, now + timedelta(seconds=policy.socket_wait))
        return replace(
            session,
            expires_at=expires,
            announces=lease.announces,
            resumable_until=until,
            # Whoever is online stays so, should this session replace the one through which they are.
            leave_at=until if user.online and lease.announces else None,
        )


def anonymous(application: Application, at: datetime) -> User:
    """Who stands for a user in the sessions of those without an account. Never stored, never online."""
    return User(NOBODY_ID, application.id, ANONYMOUS, ANONYMOUS, at, guest=True)


def ended_with_story(session: Session, now: datetime, reason: EndReason, text: str) -> tuple[Session, StoryEntry]:
    """The session as it ends, and what its story tells of that."""
    return rules.end(session, now, reason), StoryEntry(now, StoryKind.ENDED, reason.value, text)


def _close(tx: Transaction, session: Session, now: datetime, reason: EndReason) -> Session:
    ended, story = ended_with_story(session, now, reason, "")
    tx.sessions.save(ended, story)
    return ended


def _make_room(live: Sequence[Session], policy: SessionPolicy, force: bool, now: datetime) -> Sequence[Session]:
    """Which sessions must end so that one more may start, oldest first in ``live``."""
    surplus = len(live) + 1 - policy.max_sessions
    if surplus <= 0:
        return ()
    # Sessions without a connection go first, whatever the policy: a page that was reloaded left one behind. One that
    # was made just now is about to get its connection.
    fresh = now - timedelta(seconds=SETTLING)
    active = [
        session
        for session in live
        if session.state is SessionState.ACTIVE
        or (session.state is SessionState.STARTING and session.started_at > fresh)
    ]
    suspended = [session for session in live if session not in active][:surplus]
    surplus -= len(suspended)
    if surplus == 0:
        return suspended
    match DuplicatePolicy.END_OLDEST if force else policy.duplicates:
        case DuplicatePolicy.END_OLDEST:
            return suspended + active[:surplus]
        case DuplicatePolicy.END_NEWEST:
            return suspended + active[len(active) - surplus :]
        case DuplicatePolicy.REJECT_NEW:
            raise SessionLimitReached(f"The user already has {len(active)} sessions, and no more are allowed")
