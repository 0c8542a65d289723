"""Sessions: started, suspended, resumed, ended - by their clients, by operators, and by time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from offhook.codes import ENDINGS, CloseReason, EndReason
from offhook.domain import sessions as rules
from offhook.domain.accounts import (
    Application,
    User,
)
from offhook.domain.events import user_topic
from offhook.domain.sessions import Client, Session, SessionState, StoryEntry, StoryKind
from offhook.domain.subscriptions import Subscription
from offhook.domain.values import JsonObject, Page, PageRequest
from offhook.errors import AccessDenied, Conflict, NotFound, OffhookError, Unavailable
from offhook.ports import (
    Broker,
    Clock,
    EndSession,
    FenceSession,
    Observer,
    SessionFilter,
    StartAttempt,
    Store,
    SubscriptionChanged,
    Transaction,
)
from offhook.services.authentication import Authenticator
from offhook.services.hub import Hub, LiveSession, Outlet, Word
from offhook.services.presence import arrive, leave
from offhook.services.signing import SessionToken, Signer
from offhook.services.starting import NOBODY_ID, Begun, Starter, anonymous, ended_with_story

BATCH = 500
"""Sessions changed in one transaction when many are changed at once."""
MAX_STORY = 200
"""Resumes of one session that its story tells of one by one; of those beyond, only the number is known."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SessionStory:
    """A session with everything that happened to it."""

    session: Session
    story: Sequence[StoryEntry]


@dataclass(frozen=True, slots=True)
class _Resumed:
    """What a resumed session's transaction found."""

    user: User
    user_as_of: int
    session: Session
    old_node: str
    same_epoch: bool
    subscription: Subscription | None = None


class SessionService:
    """Use cases around sessions, on one node.

    Args:
        node: this node's name.
        restart_grace: seconds that users stay online beyond their application's leave grace while this server
            restarts, so that a planned restart is not seen.
    """

    def __init__(
        self,
        store: Store,
        broker: Broker,
        hub: Hub,
        authenticator: Authenticator,
        signer: Signer,
        clock: Clock,
        observer: Observer,
        node: str,
        restart_grace: float = 0.0,
    ) -> None:
        self._store = store
        self._broker = broker
        self._hub = hub
        self._authenticator = authenticator
        self._signer = signer
        self._clock = clock
        self._observer = observer
        self._restart_grace = restart_grace
        self.node = node
        self.starter = Starter(clock, node)
        self._closed: set[int] = set()
        self.unsaved: dict[int, tuple[LiveSession, CloseReason, str]] = {}
        """Suspensions that the store did not take yet, to be tried again."""

    # --- start and resume -------------------------------------------------------------------------------------------

    async def start(
        self, application: Application, username: str, auth_params: JsonObject, client: Client, outlet: Outlet
    ) -> LiveSession:
        """Starts a session.

        Args:
            application: where.
            username: who the client says it is.
            auth_params: what it sent to prove it.
            client: what is known of the client.
            outlet: its connection.

        Returns:
            The session, held (see the hub): call ``Hub.release`` when the client is ready for events.

        Raises:
            AccessDenied: the credentials are refused, the user is disabled, or has too many sessions.
            RateLimited: too many refused attempts.
            Unavailable: the store does not take it.
        """
        attempt = StartAttempt(application.name, username, auth_params, client.protocol, client.address)
        try:
            async with self._authenticator.attempt(application, attempt) as verdict:
                begun = await self._store.transact(
                    lambda tx: self.starter.begin(tx, application, username, verdict, client)
                )
        except OffhookError as error:
            self._observer.session_refused(error.code)
            raise
        await self.tell_begun(begun)
        user, session = begun.user, begun.session
        live = LiveSession(session, application, user, session.positions[user_topic(user.id)], outlet)
        await self._join(live)
        return live

    async def tell_begun(self, begun: Begun) -> None:
        """Tells the clients of sessions that ended for a new one, and counts all of it."""
        self._observer.session_started(begun.session.authentication)
        for old in begun.ended:
            reason = old.end_reason or EndReason.REPLACED
            self._observer.session_ended(reason)
            await self._broker.send(old.node, EndSession(old.id, reason))

    def refused(self, error: OffhookError) -> None:
        """Counts a start that was refused outside ``start``."""
        self._observer.session_refused(error.code)

    async def _join(self, live: LiveSession) -> None:
        """Makes a session that is stored as active a live one, or sees to it that it does not stay active."""
        try:
            await self._hub.join(live)
            for word in self._hub.early(live.id):
                await self.told(word)
            if live.application.id in self._closed and await self._is_closed(live.application.id):
                await self.end_live(live, EndReason.APPLICATION_CLOSED)
                raise AccessDenied("The application is disabled")
        except BaseException:
            await self.suspend(live, CloseReason.INTERNAL, "it could not be started")
            raise

    def application_closed(self, application_id: int, closed: bool) -> None:
        """An application accepts no sessions from now on, nor those whose start is under way; or does so again."""
        if closed:
            self._closed.add(application_id)
        else:
            self._closed.discard(application_id)

    async def _is_closed(self, application_id: int) -> bool:
        """Whether an application that is said to be closed is so: the older of two words may be heard last."""
        application = await self._store.query(lambda tx: tx.applications.get(application_id))
        closed = application is None or not application.enabled
        self.application_closed(application_id, closed)
        return closed

    async def end_closed(self) -> None:
        """Ends the sessions here of closed applications: those that began just before this node heard of that."""
        said = {live.application.id for live in self._hub if live.application.id in self._closed}
        closed = {application_id for application_id in said if await self._is_closed(application_id)}
        for live in list(self._hub) if closed else ():
            if live.application.id in closed:
                try:
                    await self.end(live.id, EndReason.APPLICATION_CLOSED)
                except (Conflict, NotFound):
                    log.debug("ended_already", session=live.id)

    async def attach(
        self,
        session_id: int,
        client: Client,
        outlet: Outlet,
        check: Callable[[Transaction, int], None] | None = None,
    ) -> LiveSession | None:
        """Gives a subscription a connection: its first, or a newer one.

        Args:
            session_id: the subscription's session; that the client may have it was checked before.
            client: what is known of the client at this connection.
            outlet: its connection.
            check: is given the transaction and the user's id first, and raises if the client may not have it after all.

        Returns:
            The session, held, or None if it has ended.

        Raises:
            AccessDenied: the application was disabled meanwhile.
            Unavailable: the store does not take it, or a newer connection has the session.
        """
        found = await self._store.transact(lambda tx: self._attach(tx, session_id, client, check))
        if found is None:
            return None
        application, resumed = found
        return await self._take_over(application, resumed, outlet)

    def _attach(
        self,
        tx: Transaction,
        session_id: int,
        client: Client,
        check: Callable[[Transaction, int], None] | None,
    ) -> tuple[Application, _Resumed] | None:
        session = tx.sessions.get(session_id)
        subscription = tx.subscriptions.get(session_id)
        application = None if session is None else tx.applications.get(session.application_id)
        if session is None or subscription is None or application is None or not application.enabled:
            return None
        if session.user_id == NOBODY_ID:
            user: User | None = anonymous(application, session.started_at)
        else:
            user = tx.users.get(application.id, session.user_id)
        if user is None or not user.enabled:
            return None
        if check is not None:
            check(tx, user.id)
        resumed = self._taken_over(tx, session, user, replace(session.client, address=client.address))
        return None if resumed is None else (application, replace(resumed, subscription=subscription))

    async def resume(
        self, application: Application, username: str, token: str, client: Client, outlet: Outlet
    ) -> LiveSession | None:
        """Resumes the session that a client had before its connection broke, without asking for credentials again.

        Args:
            application: where the client is now.
            username: who it says it is now.
            token: what ``token_of`` gave it.
            client: what is known of the client.
            outlet: its new connection.

        Returns:
            The session, held, with ``recovered`` saying whether all that it missed is still there; or None if the
            token is not for a session of this user that can be resumed: then start afresh.

        Raises:
            AccessDenied: the application was disabled meanwhile, or the session was ended by somebody's will.
            Unavailable: the store does not take it, or a newer connection has the session.
        """
        shown = SessionToken.decode(token, self._signer)
        if shown is None:
            return None
        found = await self._store.transact(lambda tx: self._resume(tx, application, username, shown, client))
        return None if found is None else await self._take_over(application, found, outlet)

    async def _take_over(self, application: Application, found: _Resumed, outlet: Outlet) -> LiveSession:
        session, old_node = found.session, found.old_node
        live = LiveSession(session, application, found.user, found.user_as_of, outlet, found.subscription)
        if old_node != self.node:
            await self._broker.send(old_node, FenceSession(session.id, session.generation))
        # Only now: a newer connection may have overtaken this one while the other node was told.
        here = self._hub.get(session.id)
        if here is not None and here.record.generation > session.generation:
            raise Unavailable("The session was resumed by a newer connection meanwhile")
        unsaved = self.unsaved.pop(session.id, None)
        known = here or (None if unsaved is None else unsaved[0])
        if old_node != self.node:
            # What is known here is older than the connection elsewhere, whose client's positions are stored.
            known = None
        if known is not None:
            live.acked = dict(known.acked)
            live.taken = known.taken
        if here is not None:
            await self._fence(here)
        await self._join(live)
        try:
            if known is not None:
                seen = (session.id, session.generation, dict(live.acked))
                await self._store.transact(lambda tx: tx.sessions.save_positions([seen]))
            live.recovered = found.same_epoch and await self._hub.recoverable(live)
        except BaseException:
            await self.suspend(live, CloseReason.INTERNAL, "it could not be resumed")
            raise
        if session.generation > 1:
            self._observer.session_resumed(live.recovered)
        return live

    def _resume(
        self, tx: Transaction, application: Application, username: str, shown: SessionToken, client: Client
    ) -> _Resumed | None:
        session = tx.sessions.get(shown.session_id)
        if session is None or session.application_id != application.id or session.user_name != username:
            return None
        # The client may not have got the newest token before the connection broke, so the one before it is good too.
        if not session.generation - 1 <= shown.generation <= session.generation:
            return None
        reason = session.end_reason
        if reason is not None and reason is not EndReason.CLIENT and not ENDINGS[reason].retry:
            # It was sent away, but what told it so was lost. A new session in the old one's stead would undo that.
            raise AccessDenied(ENDINGS[reason].text)
        user = tx.users.get(application.id, session.user_id)
        if user is None or not user.enabled:
            return None
        return self._taken_over(tx, session, user, client)

    def _taken_over(self, tx: Transaction, session: Session, user: User, client: Client) -> _Resumed | None:
        now = self._clock.now()
        try:
            resumed = rules.resume(session, now, self.node, client)
        except Conflict:
            return None
        if resumed.announces:
            user = arrive(tx, user)
        head = tx.head(user_topic(user.id))
        same_epoch = resumed.epoch == head.epoch
        if not same_epoch:
            positions = {topic: tx.head(topic).offset for topic in resumed.positions}
            resumed = replace(resumed, positions=positions, epoch=head.epoch)
        kind = StoryKind.CONNECTED if session.state is SessionState.STARTING else StoryKind.RESUMED
        story = StoryEntry(now, kind, detail=f"from {client.address}")
        tx.sessions.save(resumed, story if resumed.resumes <= MAX_STORY else None)
        return _Resumed(user, head.offset, resumed, session.node, same_epoch)

    def token_of(self, live: LiveSession) -> str:
        """What the client of a session is to show in order to resume it."""
        return SessionToken(live.id, live.record.generation).encode(self._signer)

    # --- suspend and end --------------------------------------------------------------------------------------------

    async def suspend(self, live: LiveSession, reason: CloseReason, detail: str = "") -> None:
        """The connection of a session broke. Never raises: what the store does not take now it is given again later."""
        try:
            await self._hub.leave(live)
            saved = await self._store.transact(lambda tx: self._suspend(tx, live, reason, detail))
        except Exception:
            log.exception("suspend_failed", session=live.id)
            self.unsaved[live.id] = (live, reason, detail)
            return
        if saved:
            self._observer.session_suspended(reason)

    def _suspend(self, tx: Transaction, live: LiveSession, reason: CloseReason, detail: str) -> bool:
        session = tx.sessions.get(live.id)
        if session is None or session.generation != live.record.generation or session.state is not SessionState.ACTIVE:
            return False
        now = self._clock.now()
        policy = live.application.sessions
        if reason is CloseReason.DRAINING:
            policy = replace(
                policy,
                leave_grace=policy.leave_grace + self._restart_grace,
                socket_grace=policy.socket_grace + self._restart_grace,
            )
        suspended = replace(rules.suspend(session, now, policy), positions=dict(live.acked))
        if live.taken:
            tx.messages.mark_delivered([(live.user_id, live.taken)])
        story = rules.story_of_close(reason, detail, now)
        tx.sessions.save(suspended, story if session.resumes < MAX_STORY else None)
        return True

    async def end(self, session_id: int, reason: EndReason, text: str = "") -> Session:
        """Ends a session, wherever its connection is.

        Args:
            session_id: which.
            reason: why.
            text: an operator's words, for the client and the session's story.

        Returns:
            The session as it ended.

        Raises:
            NotFound: there is no such session.
            Conflict: it has ended already.
        """

        def work(tx: Transaction) -> Session:
            session = tx.sessions.get(session_id)
            if session is None:
                raise NotFound(f"There is no session {session_id}")
            return self._end(tx, session, reason, text)

        session = await self._store.transact(work)
        self._observer.session_ended(reason)
        await self._broker.send(session.node, EndSession(session.id, reason, text))
        return session

    async def end_live(self, live: LiveSession, reason: EndReason) -> None:
        """Ends a session of this node whose client said goodbye; its connection is left to the caller."""
        await self._hub.leave(live)

        def work(tx: Transaction) -> bool:
            session = tx.sessions.get(live.id)
            if session is None or not session.live or session.generation != live.record.generation:
                return False
            self._end(tx, replace(session, positions=live.acked), reason, "")
            return True

        if await self._store.transact(work):
            self._observer.session_ended(reason)

    async def end_all(self, where: SessionFilter, reason: EndReason, text: str = "") -> int:
        """Ends every live session of a filter. Returns how many."""
        total = 0
        while True:
            found, ended = await self._store.transact(lambda tx: self._end_some(tx, where, reason, text))
            for session in ended:
                self._observer.session_ended(reason)
                await self._broker.send(session.node, EndSession(session.id, reason, text))
            total += len(ended)
            if found < BATCH:
                return total

    def _end_some(
        self, tx: Transaction, where: SessionFilter, reason: EndReason, text: str
    ) -> tuple[int, Sequence[Session]]:
        page = tx.sessions.list(replace(where, live=True), PageRequest(size=BATCH))
        # As each is by then: a list holds nothing, and others change sessions at the same time.
        current = (tx.sessions.get(session.id) for session in page.items)
        ended = [self._end(tx, session, reason, text) for session in current if session is not None and session.live]
        return len(page.items), ended

    def _end(self, tx: Transaction, session: Session, reason: EndReason, text: str) -> Session:
        now = self._clock.now()
        ended, story = ended_with_story(session, now, reason, text)
        tx.sessions.save(ended, story)
        leave(tx, session.application_id, session.user_id, now)
        return ended

    def end_of_user(self, tx: Transaction, user: User, reason: EndReason) -> Sequence[Session]:
        """Ends all sessions of a user within a transaction; give what is returned to ``tell_ended`` after it."""
        return [self._end(tx, session, reason, "") for session in tx.sessions.live_of(user.id)]

    async def tell_ended(self, sessions: Sequence[Session], reason: EndReason) -> None:
        """Tells the clients of sessions that ended in a transaction."""
        for session in sessions:
            self._observer.session_ended(reason)
            await self._broker.send(session.node, EndSession(session.id, reason))

    # --- commands from other nodes and from operators ---------------------------------------------------------------

    async def told(self, word: Word) -> None:
        """Another node said something about a session whose connection may be here."""
        match word:
            case SubscriptionChanged():
                self._hub.subscription_changed(word)
            case EndSession():
                await self.ended_elsewhere(word)
            case FenceSession():
                await self.fenced_elsewhere(word)

    async def ended_elsewhere(self, command: EndSession) -> None:
        """A session whose connection may be here has ended in the store."""
        live = self._hub.addressee(command)
        if live is not None:
            await self._hub.leave(live)
            live.outlet.ended(command.reason, command.text)

    async def fenced_elsewhere(self, command: FenceSession) -> None:
        """A newer connection, elsewhere, took over a session whose connection may be here."""
        live = self._hub.addressee(command)
        if live is not None and live.record.generation < command.generation:
            await self._fence(live)

    async def _fence(self, live: LiveSession) -> None:
        await self._hub.leave(live)
        live.outlet.drop(CloseReason.SUPERSEDED)

    # --- looking ----------------------------------------------------------------------------------------------------

    async def list(self, where: SessionFilter, page: PageRequest) -> Page[Session]:
        """Sessions, live and past, newest first."""
        return await self._store.query(lambda tx: tx.sessions.list(where, page))

    async def show(self, session_id: int) -> SessionStory:
        """A session with its whole story. Raises NotFound."""

        def work(tx: Transaction) -> SessionStory:
            session = tx.sessions.get(session_id)
            if session is None:
                raise NotFound(f"There is no session {session_id}")
            started = StoryEntry(session.started_at, StoryKind.STARTED, detail=f"by {session.authentication.value}")
            return SessionStory(session, [started, *tx.sessions.story(session_id)])

        return await self._store.query(work)
