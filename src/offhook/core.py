"""Store, broker and services put together, without any socket."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from offhook.broker import MEMORY, NodeBroker, check_broker_url, open_broker
from offhook.codes import CloseReason, EndReason
from offhook.domain.accounts import Application
from offhook.domain.limits import Rate
from offhook.domain.sessions import Authentication
from offhook.errors import InvalidInput
from offhook.functions.registry import Registry
from offhook.functions.runner import FunctionRunner
from offhook.functions.webhook import Webhooks
from offhook.gateways.background import in_background
from offhook.ports import (
    Answer,
    ApplicationChanged,
    BlocksChanged,
    Clock,
    Command,
    EndSession,
    FenceSession,
    Handlers,
    Publication,
    Question,
    Store,
    SubscriptionChanged,
)
from offhook.protocols.kandy import hmac_token
from offhook.server.metrics import Metrics
from offhook.services.applications import ApplicationService
from offhook.services.authentication import Authenticator
from offhook.services.credentials import Credentials
from offhook.services.hmac_tokens import HmacTokens
from offhook.services.hub import Hub
from offhook.services.logins import Logins
from offhook.services.messages import MessageService
from offhook.services.passwords import Passwords
from offhook.services.pictures import PictureService
from offhook.services.questions import Questions
from offhook.services.reaper import Reaper
from offhook.services.reconcile import Reconciler
from offhook.services.sessions import SessionService
from offhook.services.signing import Signer
from offhook.services.subscriptions import SubscriptionService
from offhook.services.tokens import TokenVerifier
from offhook.services.users import UserService
from offhook.settings import Settings
from offhook.storage import SQLiteStore, on_postgresql, open_store
from offhook.storage.blobs import DiskBlobs

RESTART_GRACE = 20.0
"""Seconds beyond the drain in which a restarted server and its clients should be back."""

log = structlog.get_logger(__name__)


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """See ``ports.Clock``."""
        return datetime.now(UTC)


class SessionCounts:
    """Counts what happens to sessions in the metrics. Implements ``ports.Observer``."""

    def __init__(self, metrics: Metrics, hub: Hub) -> None:
        self._metrics = metrics
        self._hub = hub

    def session_started(self, authentication: Authentication) -> None:
        self._metrics.session_starts.add("started", authentication.value)
        self._metrics.sessions_active = len(self._hub) + 1

    def session_refused(self, code: str) -> None:
        self._metrics.session_starts.add(code, "none")

    def session_resumed(self, complete: bool) -> None:
        self._metrics.session_starts.add("resumed" if complete else "resumed_with_gap", "none")
        if not complete:
            self._metrics.dropped += 1
        self._metrics.sessions_active = len(self._hub)

    def session_suspended(self, reason: CloseReason) -> None:
        self._metrics.sessions_active = len(self._hub)

    def session_ended(self, reason: EndReason) -> None:
        self._metrics.session_ends.add(reason.value)
        self._metrics.sessions_active = len(self._hub)


@dataclass(frozen=True, slots=True)
class Core:
    """The services of one node and what they stand on."""

    settings: Settings
    metrics: Metrics
    clock: Clock
    signer: Signer
    store: Store
    broker: NodeBroker
    hub: Hub
    applications: ApplicationService
    users: UserService
    sessions: SessionService
    subscriptions: SubscriptionService
    messages: MessageService
    credentials: Credentials
    logins: Logins
    pictures: PictureService
    passwords: Passwords
    reaper: Reaper
    reconciler: Reconciler
    questions: Questions

    def hmac_key(self, application: Application) -> str:
        """The key with which the application's back end makes its users' HMAC tokens."""
        return self.credentials.hmac_key(application)

    @property
    def turn_secret(self) -> str:
        """The secret that the TURN server must share: the one from the settings, or one made of the server's key."""
        return self.settings.turn_secret or self.signer.derive("turn", "")

    def webhook_secret(self, application: Application) -> str:
        """The secret that signs the application's webhook calls."""
        return self.signer.derive_for("webhook", application)


@contextlib.asynccontextmanager
async def open_core(settings: Settings, registry: Registry | None = None) -> AsyncIterator[Core]:
    """Opens the database and puts the services together; closes it all at the end of the context.

    Args:
        settings: all of them.
        registry: the applications' Python functions; only a server that starts sessions needs them.

    Raises:
        InvalidInput: a setting names something that is not there.
        Unavailable: the database cannot be opened.
    """
    check_engines(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    metrics = Metrics()
    signer = Signer(_signing_key(settings))
    node = secrets.token_hex(6)
    async with contextlib.AsyncExitStack() as stack:
        committed: list[Callable[[Sequence[Publication]], None]] = []
        # The nodes of one system go by the clock that they share: the database's, where that is a server.
        own = None if on_postgresql(settings) else SystemClock()
        store = await open_store(settings, lambda publications: committed[0](publications), metrics, own)
        clock = store.clock
        stack.push_async_callback(store.close)
        if not isinstance(store, SQLiteStore):
            await store.bind_key(signer.mac("node", "fingerprint"))
        broker = open_broker(settings.broker_url, settings.broker_prefix, store.journal)
        committed.append(broker.deliver)
        stack.push_async_callback(broker.close)
        hub = Hub(broker, metrics.delivered)
        counts = SessionCounts(metrics, hub)
        passwords = Passwords(settings.password_workers)
        stack.push_async_callback(passwords.close)
        tokens = TokenVerifier()
        stack.push_async_callback(tokens.close)
        webhooks = Webhooks(lambda application: signer.derive_for("webhook", application))
        stack.push_async_callback(webhooks.close)

        async def user_exists(application: Application, name: str) -> bool:
            return await store.query(lambda tx: tx.users.by_name(application.id, name)) is not None

        functions = FunctionRunner(
            registry or Registry(),
            webhooks,
            timeout=settings.function_timeout,
            user_exists=user_exists,
            observer=lambda outcome, seconds: _count_function(metrics, outcome, seconds),
        )
        stack.push_async_callback(functions.close)
        denial = Rate(settings.denial_rate, settings.denial_burst)
        authenticator = Authenticator(store, functions, passwords, tokens, denial)
        stack.push_async_callback(authenticator.close)
        restart_grace = settings.drain_seconds + RESTART_GRACE
        sessions = SessionService(store, broker, hub, authenticator, signer, clock, counts, node, restart_grace)
        blobs = DiskBlobs(settings.files_path) if isinstance(store, SQLiteStore) else store.blobs
        applications = ApplicationService(store, broker, clock, sessions)
        users = UserService(store, broker, clock, passwords, sessions, blobs)
        reconciler = Reconciler(store, hub, applications, sessions, clock)
        reaper = Reaper(
            store,
            broker,
            hub,
            sessions,
            clock,
            counts,
            reconciler,
            settings.node_lease,
            settings.session_retention,
        )
        pictures = PictureService(blobs, users, settings.max_upload)
        logins = Logins(store, authenticator, signer, clock)
        credentials = Credentials(store, authenticator, logins, HmacTokens(signer, clock, hmac_token.decode))
        subscriptions = SubscriptionService(store, broker, clock, sessions, credentials)
        core = Core(
            settings,
            metrics,
            clock,
            signer,
            store,
            broker,
            hub,
            applications,
            users,
            sessions,
            subscriptions,
            MessageService(store, clock),
            credentials,
            logins,
            pictures,
            passwords,
            reaper,
            reconciler,
            Questions(broker, node),
        )
        handlers = Handlers(
            publication=hub.publish,
            command=_Commands(core).take,
            resync=lambda: in_background(reconciler.resync()),
            gap=hub.gap,
            late=hub.late,
        )
        broker.start(node, handlers)
        await reconciler.learn_blocks()
        yield core


class _Commands:
    """Takes the commands of other nodes, and of this one to itself."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def take(self, command: Command) -> None:
        """Carries a command out, in the background where it takes time."""
        match command:
            case ApplicationChanged(application_id, closed):
                self._core.applications.forget(application_id)
                self._core.sessions.application_closed(application_id, closed)
            case BlocksChanged():
                self._core.reconciler.blocks_changed(command)
                in_background(self._core.reconciler.confirm_blocks())
            case SubscriptionChanged():
                self._core.hub.subscription_changed(command)
            case EndSession():
                in_background(self._core.sessions.ended_elsewhere(command))
            case FenceSession():
                in_background(self._core.sessions.fenced_elsewhere(command))
            case Question():
                in_background(self._core.questions.asked(command))
            case Answer():
                self._core.questions.answered(command)


def check_engines(settings: Settings) -> None:
    """Refuses databases and brokers that this version has not.

    Raises:
        InvalidInput: the setting names one.
    """
    url = settings.database_url
    if url is not None and not url.startswith("sqlite:///") and not on_postgresql(settings):
        raise InvalidInput("database_url must be sqlite:///PATH or postgresql://…", "database_url")
    if settings.broker_url != MEMORY:
        check_broker_url(settings.broker_url)
        if not on_postgresql(settings):
            raise InvalidInput("broker_url needs a database_url of PostgreSQL, which nodes can share", "broker_url")


def _count_function(metrics: Metrics, outcome: str, seconds: float) -> None:
    metrics.function_calls.add("authentication", outcome)
    metrics.function_time.observe(seconds, "authentication")


def _signing_key(settings: Settings) -> bytes:
    """The key from the settings, or the one that is kept in the data folder."""
    if settings.secret_key is not None:
        return settings.secret_key.encode()
    path = settings.data_dir / "secret.key"
    try:
        return bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        key = secrets.token_bytes(32)
        draft = path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(key.hex())
        draft.replace(path)
        return key
    except ValueError:
        raise InvalidInput(f"{path} is damaged; delete it (no session can be resumed then)", "secret_key") from None
