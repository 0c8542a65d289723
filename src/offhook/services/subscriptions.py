"""Subscriptions: sessions that are made by a request, renewed by requests, and get their events over a socket."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from offhook.codes import EndReason
from offhook.domain import sessions as rules
from offhook.domain import subscriptions as terms
from offhook.domain.accounts import Application, User
from offhook.domain.events import Topic, application_topic, user_topic
from offhook.domain.presence import Presence, presence_of
from offhook.domain.sessions import Client, Session, SessionState
from offhook.domain.subscriptions import (
    ANONYMOUS_SERVICES,
    IM,
    PRESENCE,
    SERVICES,
    Outline,
    Owed,
    Product,
    Subscription,
)
from offhook.errors import AccessDenied, NotFound, NotSubscribed, OffhookError, SessionLimitReached
from offhook.ports import Broker, Clock, Store, SubscriptionChanged, Transaction
from offhook.services.credentials import Credentials, Identity, Proof, SignedIn
from offhook.services.presence import arrive, leave
from offhook.services.sessions import SessionService
from offhook.services.starting import Begun, Lease

MAX_ANONYMOUS = 200
"""Live subscriptions of callers without an account in one application."""
MAX_ANONYMOUS_AT = 10
"""The same from one address."""
NOBODY = "There is nobody to call under this address"
"""What such callers are told, whatever it is that there is not: they need not know which names are in use."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks for.

    Attributes:
        services: names of services, known or not.
        lifetime: seconds, or None if it did not say.
        localization: the client's language, as it names it.
        correlator: the client's own name for the subscription, or None.
        force: whether to end the user's oldest session, should there be too many.
        device: tells its requests from those of the same user's other clients.
        product: the client's family.
    """

    services: tuple[str, ...]
    lifetime: float | None = None
    localization: str = "English_US"
    correlator: str | None = None
    force: bool = False
    device: str = ""
    product: Product = Product.LINK


@dataclass(frozen=True, slots=True)
class Opened:
    """A subscription as its client is told of it.

    Attributes:
        session: its session.
        subscription: what it has beyond that.
        hmac_session: what the client is to show from now on instead of its token, or None.
    """

    session: Session
    subscription: Subscription
    hmac_session: str | None = None


class Watching(StrEnum):
    """What a client wants to do about the presence of users."""

    GET = "get"
    WATCH = "watch"
    STOP = "stopwatch"


class SubscriptionService:
    """Use cases around subscriptions."""

    def __init__(
        self, store: Store, broker: Broker, clock: Clock, sessions: SessionService, credentials: Credentials
    ) -> None:
        self._store = store
        self._broker = broker
        self._clock = clock
        self._sessions = sessions
        self._credentials = credentials

    # --- begin, renew, end ------------------------------------------------------------------------------------------

    async def create(
        self, application: Application, username: str, proofs: Sequence[Proof], wanted: Wanted, client: Client
    ) -> Opened:
        """Makes a subscription; its session waits for its socket from now on.

        Args:
            application: where.
            username: who the client says it is.
            proofs: what it sent to prove it, in the order in which to try them.
            wanted: what it asks for.
            client: what is known of it.

        Raises:
            InvalidInput: none of the services is offered.
            AccessDenied: the credentials are refused, the user is disabled, or has too many sessions.
            RateLimited: too many refused attempts.
            Unavailable: the store does not take it.
        """
        services = terms.granted(wanted.services, SERVICES)
        try:
            async with self._credentials.sign_in(application, username, proofs, client) as signed:
                opened = await self._open(application, username, signed, wanted, services, client)
        except OffhookError as error:
            self._sessions.refused(error)
            raise
        if not signed.hmac:
            return opened
        return replace(opened, hmac_session=self._credentials.hmac_session(opened.session))

    async def _open(
        self,
        application: Application,
        username: str,
        signed: SignedIn,
        wanted: Wanted,
        services: tuple[str, ...],
        client: Client,
    ) -> Opened:
        lifetime = terms.lifetime(wanted.lifetime)
        lease = Lease(lifetime + terms.RENEWAL_GRACE, PRESENCE in services, wanted.force)

        def work(tx: Transaction) -> tuple[Subscription, Begun]:
            if signed.used is not None:
                signed.used.use(tx)
            begun = self._sessions.starter.begin(tx, application, username, signed.verdict, client, lease)
            subscription = Subscription(
                session_id=begun.session.id,
                product=wanted.product,
                services=services,
                lifetime=lifetime,
                localization=wanted.localization,
                correlator=wanted.correlator,
                login=signed.login,
                device=wanted.device,
                backlog=tx.messages.waiting(begun.user.id) if IM in services else 0,
                im_since=begun.session.positions[user_topic(begun.user.id)],
            )
            tx.subscriptions.add(subscription)
            return subscription, begun

        subscription, begun = await self._store.transact(work)
        await self._sessions.tell_begun(begun)
        return Opened(begun.session, subscription)

    async def create_anonymous(self, application: Application, callee: str, wanted: Wanted, client: Client) -> Opened:
        """Makes the subscription of a caller without an account.

        Args:
            application: where.
            callee: name of the user who is to be called.
            wanted: what the client asks for.
            client: what is known of it.

        Raises:
            InvalidInput: none of the services is offered to such callers.
            AccessDenied: the application has no guests.
            SessionLimitReached: there are too many such callers now.
            NotFound: there is nobody of that name to call.
        """
        services = terms.granted(wanted.services, ANONYMOUS_SERVICES)
        if not application.guests:
            raise AccessDenied("Callers without an account are not let in here")
        lifetime = terms.lifetime(wanted.lifetime)
        lease = Lease(lifetime + terms.RENEWAL_GRACE, False, False)

        def work(tx: Transaction) -> tuple[Subscription, Begun]:
            # Such callers belong to no user who could be held: it is the application that is, so that the counts hold.
            known = tx.applications.by_name(application.name)
            user = None if known is None else tx.users.by_name(application.id, callee)
            if user is None or not user.enabled:
                raise NotFound(NOBODY)
            if tx.subscriptions.anonymous(application.id, client.address) >= MAX_ANONYMOUS_AT:
                raise SessionLimitReached("Too many callers without an account are connected from this address")
            if tx.subscriptions.anonymous(application.id) >= MAX_ANONYMOUS:
                raise SessionLimitReached("Too many callers without an account are connected")
            begun = self._sessions.starter.begin_anonymous(tx, application, client, lease)
            session_id = begun.session.id
            subscription = Subscription(session_id, Product.ANONYMOUS, services, lifetime, wanted.localization)
            tx.subscriptions.add(subscription)
            return subscription, begun

        subscription, begun = await self._store.transact(work)
        await self._sessions.tell_begun(begun)
        return Opened(begun.session, subscription)

    async def renew(self, user: User, key: int | str, wanted: Wanted) -> Opened:
        """Lets a subscription go on, with the services asked for now.

        Args:
            user: whose; others' subscriptions are unknown here.
            key: its session's id, or its correlator.
            wanted: what the client asks for now.

        Raises:
            InvalidInput: none of the services is offered.
            NotFound: the user has no such subscription (any more).
        """
        return await self._renew(lambda tx: _find(tx, _hold(tx, user), key), wanted, SERVICES)

    async def renew_anonymous(self, application: Application, session_id: int, wanted: Wanted) -> Opened:
        """Lets the subscription of a caller without an account go on.

        Raises:
            AccessDenied: the application has no guests any more.
            InvalidInput: as ``renew`` does.
            NotFound: likewise.
        """
        if not application.guests:
            raise AccessDenied("Callers without an account are not let in here")
        return await self._renew(lambda tx: _find_anonymous(tx, application, session_id), wanted, ANONYMOUS_SERVICES)

    async def _renew(
        self, find: Callable[[Transaction], Subscription | None], wanted: Wanted, known: frozenset[str]
    ) -> Opened:
        services = terms.granted(wanted.services, known)
        lifetime = terms.lifetime(wanted.lifetime)

        def work(tx: Transaction) -> tuple[Session, Subscription]:
            subscription = find(tx)
            before = None if subscription is None else tx.sessions.get(subscription.session_id)
            now = self._clock.now()
            if subscription is None or before is None or not before.live or rules.overdue(before, now) is not None:
                raise NotFound("There is no such subscription")
            backlog = tx.messages.waiting(before.user_id) if IM in services else 0
            head = tx.head(user_topic(before.user_id)).offset
            subscription = terms.changed(subscription, services, lifetime, backlog, head)
            expires = now + timedelta(seconds=lifetime + terms.RENEWAL_GRACE)
            session = replace(rules.renew(before, expires), announces=subscription.announces)
            if not session.announces:
                session = replace(session, leave_at=None)
            tx.sessions.save(session)
            tx.subscriptions.save(subscription)
            user = tx.users.get(before.application_id, before.user_id)
            if user is not None and session.online(now) and not before.online(now):
                arrive(tx, user)
            elif before.announces and not session.announces:
                leave(tx, before.application_id, before.user_id, now)
            return session, subscription

        session, subscription = await self._store.transact(work)
        await self._tell([(session, subscription)])
        return Opened(session, subscription)

    async def end(self, user: User, key: int | str) -> bool:
        """Ends a subscription, named by its session's id or its correlator, as its client wishes.

        Returns whether the user had it.
        """

        def work(tx: Transaction) -> Session | None:
            subscription = _find(tx, user, key)
            return None if subscription is None else tx.sessions.get(subscription.session_id)

        return await self._end(await self._store.query(work))

    async def end_anonymous(self, application: Application, session_id: int) -> bool:
        """Ends the subscription of a caller without an account. Returns whether there was one."""

        def work(tx: Transaction) -> Session | None:
            found = _find_anonymous(tx, application, session_id)
            return None if found is None else tx.sessions.get(session_id)

        return await self._end(await self._store.query(work))

    async def _end(self, session: Session | None) -> bool:
        if session is None:
            return False
        try:
            await self._sessions.end(session.id, EndReason.CLIENT)
        except OffhookError as error:
            if error.code in ("not_found", "conflict"):
                return False
            raise
        return True

    # --- presence ---------------------------------------------------------------------------------------------------

    async def watch(self, identity: Identity, device: str, names: Sequence[str], action: Watching) -> None:
        """Changes whose presence a client is told.

        A request does not name the subscription it is for. It is the one that the credentials belong to; else those
        that were made from the same device; else all that the user has.

        Args:
            identity: who asks, with what.
            device: from where.
            names: addresses of users, whether there are such or not.
            action: see ``Watching``.

        Raises:
            InvalidInput: the client would watch too many.
            NotSubscribed: the user has no subscription with presence.
        """

        def work(tx: Transaction) -> list[tuple[Session, Subscription]]:
            found = _subscribed(tx, replace(identity, user=_hold(tx, identity.user)), device, PRESENCE)
            head = tx.head(application_topic(identity.user.application_id)).offset
            changed: list[tuple[Session, Subscription]] = []
            for outline in found:
                subscription = tx.subscriptions.get(outline.session_id)
                session = tx.sessions.get(outline.session_id)
                if subscription is None or session is None:
                    continue
                match action:
                    case Watching.GET:
                        subscription = terms.owing(subscription, names)
                    case Watching.WATCH:
                        subscription = terms.watching(subscription, names, head)
                    case Watching.STOP:
                        subscription = terms.unwatching(subscription, names)
                tx.subscriptions.save(subscription)
                changed.append((session, subscription))
            return changed

        await self._tell(await self._store.transact(work))

    async def require(self, identity: Identity, service: str) -> None:
        """Raises NotSubscribed unless the user has a live subscription with a service."""
        await self._store.query(lambda tx: _subscribed(tx, identity, "", service))

    async def presence(self, application_id: int, viewer: int, names: Sequence[str]) -> dict[str, Presence]:
        """The presence of users, by their addresses as given; between whom a block stands, nothing is known."""

        def work(tx: Transaction) -> dict[str, Presence]:
            hidden = tx.users.blocked_either_way(viewer)
            found = {name: tx.users.by_name(application_id, terms.user_of(name)) for name in names}
            return {
                name: presence_of(None if user is None or user.id in hidden else user) for name, user in found.items()
            }

        return await self._store.query(work)

    async def shown(self, session_id: int, generation: int, got: Collection[Owed], seen: Mapping[Topic, int]) -> None:
        """A client is known to have got the presence that it asked for.

        Args:
            session_id: whose.
            generation: of its connection.
            got: what it got.
            seen: topic → offset of what it has seen: what changes from there on is to be told, whatever happens.
        """

        def work(tx: Transaction) -> None:
            subscription = tx.subscriptions.get(session_id)
            if subscription is not None:
                tx.subscriptions.save(terms.shown(subscription, got))
                tx.sessions.save_positions([(session_id, generation, seen)])

        await self._store.transact(work)

    async def owe(self, session_id: int, names: Sequence[str] | None = None) -> Subscription | None:
        """Owes a client the presence of some whom it watches, or of all, since events cannot tell it.

        Returns the subscription as it is then; None if it is gone.
        """

        def work(tx: Transaction) -> Subscription | None:
            subscription = tx.subscriptions.get(session_id)
            if subscription is not None:
                watched = subscription.watched
                wanted = watched if names is None else [name for name in watched if name in names]
                # It was asked for once, or is watched: that is never too much.
                subscription = terms.owing(subscription, wanted, 2 * terms.MAX_WATCHED)
                tx.subscriptions.save(subscription)
            return subscription

        return await self._store.transact(work)

    async def holder(self, session_id: int) -> tuple[Application, str] | None:
        """Whose a subscription is: the application and the user's name; None if there is no such live one."""

        def work(tx: Transaction) -> tuple[Application, str] | None:
            session = tx.sessions.get(session_id)
            application = None if session is None else tx.applications.get(session.application_id)
            if session is None or application is None or not session.live:
                return None
            return application, session.user_name

        return await self._store.query(work)

    async def _tell(self, changed: Sequence[tuple[Session, Subscription]]) -> None:
        for session, subscription in changed:
            if session.state is SessionState.ACTIVE:
                await self._broker.send(session.node, SubscriptionChanged(subscription))


def _hold(tx: Transaction, user: User) -> User:
    """The user, to whose subscriptions nothing else happens from now on until the commit."""
    return tx.users.get(user.application_id, user.id) or user


def _find(tx: Transaction, user: User, key: int | str) -> Subscription | None:
    """The user's live subscription with this id, or the latest with this correlator."""
    found = [
        outline.session_id
        for outline in tx.subscriptions.live_of(user.id)
        if (outline.session_id if isinstance(key, int) else outline.correlator) == key
    ]
    return tx.subscriptions.get(found[-1]) if found else None


def _find_anonymous(tx: Transaction, application: Application, session_id: int) -> Subscription | None:
    """The subscription of a caller without an account, if this is one of the application."""
    subscription = tx.subscriptions.get(session_id)
    session = tx.sessions.get(session_id)
    if subscription is None or session is None or session.application_id != application.id:
        return None
    return subscription if subscription.product is Product.ANONYMOUS else None


def _subscribed(tx: Transaction, identity: Identity, device: str, service: str) -> Sequence[Outline]:
    having = [
        subscription for subscription in tx.subscriptions.live_of(identity.user.id) if service in subscription.services
    ]
    if not having:
        raise NotSubscribed(f"You have not subscribed to {service}")
    if identity.session_id is not None:
        exact = [subscription for subscription in having if subscription.session_id == identity.session_id]
    elif identity.login:
        exact = [subscription for subscription in having if subscription.login == identity.login]
    else:
        exact = [subscription for subscription in having if subscription.device == device]
    return exact or having
