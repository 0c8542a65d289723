"""Applications: made, found by API key on every connection, changed and deleted."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace

from offhook.codes import EndReason
from offhook.domain.accounts import (
    Application,
    SessionPolicy,
    TokenPolicy,
    WebhookPolicy,
    check_text,
    new_key,
    new_secret,
)
from offhook.errors import AccessDenied, InvalidInput, NotFound
from offhook.ports import EVERY_NODE, ApplicationChanged, Broker, Clock, SessionFilter, Store, Transaction
from offhook.services.sessions import SessionService

MAX_CACHED = 10_000
CLEARED = 500
"""Conversations, sessions or users that are deleted of an application in one transaction."""
DEFAULT = "default"
"""Name of the application of users whose names tell none."""


@dataclass(frozen=True, slots=True)
class ApplicationChanges:
    """What to change about an application; None leaves a field as it is.

    ``tokens`` and ``webhook`` are replaced whole; ``without`` names those of the two to remove.
    """

    guests: bool | None = None
    enabled: bool | None = None
    sessions: SessionPolicy | None = None
    tokens: TokenPolicy | None = None
    webhook: WebhookPolicy | None = None
    without: frozenset[str] = frozenset()


class ApplicationService:
    """Use cases around applications."""

    def __init__(self, store: Store, broker: Broker, clock: Clock, sessions: SessionService) -> None:
        self._store = store
        self._broker = broker
        self._clock = clock
        self._sessions = sessions
        self._by_key: dict[str, Application] = {}
        self._by_domain: dict[str, Application] = {}
        self._forgotten = 0

    async def create(
        self,
        name: str,
        *,
        domain: str | None = None,
        api_key: str | None = None,
        guests: bool = True,
        changes: ApplicationChanges | None = None,
    ) -> tuple[Application, str]:
        """Makes an application.

        Args:
            name: unique on the server.
            domain: its Kandy domain; ``{name}.local`` unless given.
            api_key: a key of your own choice (8 to 128 characters of ``A-Za-z0-9._~-``); else a random one.
            guests: whether unknown usernames may start sessions.
            changes: further settings.

        Returns:
            The application and its client secret, which is shown only now and stored only as a hash.

        Raises:
            InvalidInput: a value is not of its form.
            Conflict: the name, domain or key is taken.
        """
        check_text(name, "name")
        if domain is not None:
            check_text(domain, "domain")
        if api_key is not None and not _is_key(api_key):
            raise InvalidInput("api_key must have 8 to 128 characters of A-Z a-z 0-9 . _ ~ -", "api_key")
        secret = new_secret()
        application = Application(
            id=0,
            name=name,
            domain=domain or f"{name}.local",
            api_key=api_key or new_key(),
            client_id=new_key(),
            client_secret_hash=hashlib.sha256(secret.encode()).hexdigest(),
            created_at=self._clock.now(),
            guests=guests,
        )
        if changes is not None:
            application = _changed(application, changes)
        added = await self._store.transact(lambda tx: tx.applications.add(application))
        # Names that were another application's until now may be this one's.
        await self._broker.send(EVERY_NODE, ApplicationChanged(added.id, closed=not added.enabled))
        return added, secret

    async def by_api_key(self, api_key: str) -> Application:
        """The application with this key.

        Raises:
            AccessDenied: there is none, or it is disabled.
        """
        application = self._by_key.get(api_key)
        if application is None:
            forgotten = self._forgotten
            application = await self._store.query(lambda tx: tx.applications.by_api_key(api_key))
            if application is None:
                raise AccessDenied("The API key is unknown")
            if len(self._by_key) >= MAX_CACHED:
                self._by_key.clear()
            # What was read before something changed must not be remembered after it.
            if forgotten == self._forgotten:
                self._by_key[api_key] = application
        if not application.enabled:
            raise AccessDenied("The application is disabled")
        return application

    async def by_username(self, name: str) -> Application:
        """The application that a user's whole name belongs to, as Kandy's clients give no other hint.

        That is the one whose domain stands behind the last ``@``; else the one named DEFAULT; else the only one.

        Raises:
            AccessDenied: there is none, or it is disabled.
        """
        domain = name.rpartition("@")[2].casefold() if "@" in name else ""
        application = self._by_domain.get(domain)
        if application is None:
            forgotten = self._forgotten
            found = await self._store.query(lambda tx: _by_domain(tx, domain))
            if found is None:
                raise AccessDenied("The username belongs to no application")
            application, known = found
            # Of domains that no application has nothing is remembered: they are anybody's to make up.
            if known and forgotten == self._forgotten:
                if len(self._by_domain) >= MAX_CACHED:
                    self._by_domain.clear()
                self._by_domain[domain] = application
        if not application.enabled:
            raise AccessDenied("The application is disabled")
        return application

    async def by_id(self, application_id: int) -> Application:
        """The application with this id. Raises NotFound if there is none, AccessDenied if it is disabled."""
        application = await self._store.query(lambda tx: tx.applications.get(application_id))
        if application is None:
            raise NotFound("There is no such application")
        if not application.enabled:
            raise AccessDenied("The application is disabled")
        return application

    async def get(self, name: str) -> Application:
        """The application with this name. Raises NotFound."""
        return await self._store.query(lambda tx: _by_name(tx, name))

    async def list(self) -> Sequence[Application]:
        """All applications, by name."""
        return await self._store.query(lambda tx: tx.applications.list())

    async def change(self, name: str, changes: ApplicationChanges) -> Application:
        """Changes an application; disabling it ends its sessions. Raises NotFound."""

        def work(tx: Transaction) -> Application:
            application = _changed(_by_name(tx, name), changes)
            tx.applications.save(application)
            return application

        application = await self._store.transact(work)
        await self._broker.send(EVERY_NODE, ApplicationChanged(application.id, closed=not application.enabled))
        if not application.enabled:
            await self._end_sessions(application)
        return application

    async def rotate_key(self, name: str) -> tuple[Application, str]:
        """Gives an application a new API key and client secret; the old ones stop working. Sessions go on.

        Raises:
            NotFound: there is none of this name.
        """
        secret = new_secret()

        def work(tx: Transaction) -> Application:
            application = replace(
                _by_name(tx, name),
                api_key=new_key(),
                client_secret_hash=hashlib.sha256(secret.encode()).hexdigest(),
            )
            tx.applications.save(application)
            return application

        application = await self._store.transact(work)
        await self._broker.send(EVERY_NODE, ApplicationChanged(application.id, closed=not application.enabled))
        return application, secret

    async def delete(self, name: str) -> None:
        """Ends an application's sessions and deletes it with all it has.

        Raises:
            NotFound: there is none of this name.
            Unavailable: the store does not take it; then it is closed, and can be deleted again.
        """
        application = await self.change(name, ApplicationChanges(enabled=False))
        while await self._store.transact(lambda tx: tx.applications.clear(application.id, CLEARED)):
            pass
        await self._store.transact(lambda tx: tx.applications.delete(application.id))
        await self._broker.send(EVERY_NODE, ApplicationChanged(application.id, closed=True))

    def forget(self, application_id: int) -> None:
        """Drops what is remembered of an application that changed."""
        self._forgotten += 1
        for key in [key for key, application in self._by_key.items() if application.id == application_id]:
            del self._by_key[key]
        # Which application is meant where a name tells none may depend on any of them.
        self._by_domain.clear()

    def forget_all(self) -> None:
        """Drops what is remembered of any application."""
        self._forgotten += 1
        self._by_key.clear()
        self._by_domain.clear()

    @staticmethod
    def check_secret(application: Application, secret: str) -> bool:
        """Whether this is the application's client secret, in constant time."""
        hashed = hashlib.sha256(secret.encode()).hexdigest()
        return hmac.compare_digest(hashed, application.client_secret_hash)

    async def _end_sessions(self, application: Application) -> None:
        where = SessionFilter(application_id=application.id, live=True)
        await self._sessions.end_all(where, EndReason.APPLICATION_CLOSED)


def _by_name(tx: Transaction, name: str) -> Application:
    application = tx.applications.by_name(name)
    if application is None:
        raise NotFound(f"There is no application named {name!r}")
    return application


def _by_domain(tx: Transaction, domain: str) -> tuple[Application, bool] | None:
    """The application that a domain (empty: none was given) belongs to, and whether that may be remembered."""
    if domain and (application := tx.applications.by_domain(domain)) is not None:
        return application, True
    if (application := tx.applications.by_name(DEFAULT)) is not None:
        return application, not domain
    applications = tx.applications.list()
    return (applications[0], not domain) if len(applications) == 1 else None


def _is_key(text: str) -> bool:
    return 8 <= len(text) <= 128 and text.isascii() and all(c.isalnum() or c in "._~-" for c in text)


def _changed(application: Application, changes: ApplicationChanges) -> Application:
    return replace(
        application,
        guests=application.guests if changes.guests is None else changes.guests,
        enabled=application.enabled if changes.enabled is None else changes.enabled,
        sessions=changes.sessions or application.sessions,
        tokens=None if "tokens" in changes.without else changes.tokens or application.tokens,
        webhook=None if "webhook" in changes.without else changes.webhook or application.webhook,
    )
