"""The composition root: settings become a running server. The only place that knows every part.

``open_core`` puts store, broker and services together, without any socket; ``Server`` puts the gateways and the
listeners around them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from offhook.broker.memory import MemoryBroker
from offhook.codes import CloseReason, EndReason
from offhook.domain.accounts import Application
from offhook.domain.limits import Rate
from offhook.domain.sessions import Authentication
from offhook.domain.values import PageRequest
from offhook.errors import Conflict, InvalidInput, OffhookError
from offhook.functions.loader import load_functions
from offhook.functions.registry import Registry
from offhook.functions.runner import FunctionRunner
from offhook.functions.webhook import Webhooks
from offhook.gateways.admin import admin_routes, ensure_token
from offhook.gateways.background import in_background, settle
from offhook.gateways.chatkitty.acceptor import ChatKittyDoor
from offhook.gateways.chatkitty.gateway import Gateway
from offhook.gateways.chatkitty.gateway import Limits as GatewayLimits
from offhook.gateways.chatkitty.routes import Routes
from offhook.gateways.kandy.acceptor import KandyDoor
from offhook.gateways.kandy.gateway import Gateway as KandyGateway
from offhook.gateways.kandy.gateway import Limits as KandyLimits
from offhook.gateways.kandy.gateway import Turn
from offhook.gateways.kandy.rest import PREFIXES, KandyRest, cors
from offhook.ports import (
    ApplicationChanged,
    BlocksChanged,
    Broker,
    Clock,
    Command,
    EndSession,
    FenceSession,
    Publication,
    SessionFilter,
    Store,
    SubscriptionChanged,
)
from offhook.protocols import stomp
from offhook.protocols.kandy import hmac_token
from offhook.protocols.websocket import UpgradeRequest
from offhook.server.asgi import Health, body_limit, build_app
from offhook.server.cors import credentialed, public
from offhook.server.lifecycle import LagMonitor, Signals, drain, tuned_gc
from offhook.server.listeners import Endpoint, Listeners
from offhook.server.logs import configure_logging
from offhook.server.metrics import Metrics
from offhook.server.proxies import TrustedProxies
from offhook.server.timers import TimerWheel
from offhook.server.tls import Certificates, development_certificate
from offhook.server.websocket import (
    Accepted,
    Peer,
    Rejected,
    WebSocketProtocol,
    WebSocketSettings,
    protocol_factory,
)
from offhook.services.applications import ApplicationService
from offhook.services.authentication import Authenticator
from offhook.services.credentials import Credentials
from offhook.services.hmac_tokens import HmacTokens
from offhook.services.hub import Hub
from offhook.services.logins import Logins
from offhook.services.messages import MessageService
from offhook.services.passwords import Passwords
from offhook.services.pictures import PictureService
from offhook.services.reaper import Reaper
from offhook.services.sessions import SessionService
from offhook.services.signing import Signer
from offhook.services.subscriptions import SubscriptionService
from offhook.services.tokens import TokenVerifier
from offhook.services.users import UserService
from offhook.settings import Settings
from offhook.storage import DataLock, open_store
from offhook.storage.blobs import DiskBlobs

DEFAULT_APPLICATION = "default"
DEFAULT_DOMAIN = "example.com"
RESTART_GRACE = 20.0
"""Seconds beyond the drain in which a restarted server and its clients should be back."""
UPLOAD_OVERHEAD = 64 * 1024
"""Bytes that a form adds to the file in it."""
CLOSE_TIMEOUT = 5.0
MEASURE_EVERY = 5.0

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
    broker: Broker
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
    metrics, clock = Metrics(), SystemClock()
    signer = Signer(_signing_key(settings))
    node = secrets.token_hex(6)
    async with contextlib.AsyncExitStack() as stack:
        committed: list[Callable[[Sequence[Publication]], None]] = []
        store = await open_store(settings, lambda publications: committed[0](publications), metrics)
        stack.push_async_callback(store.close)
        broker = MemoryBroker(store.journal, clock)
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
        blobs = DiskBlobs(settings.data_dir / "files")
        applications = ApplicationService(store, broker, clock, sessions)
        users = UserService(store, broker, clock, passwords, sessions, blobs)
        reaper = Reaper(store, broker, hub, sessions, clock, counts, settings.node_lease, settings.session_retention)
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
        )
        broker.start(node, hub.publish, _Commands(core).take)
        hub.load_blocks(await store.query(lambda tx: tx.users.all_blocks()))
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
                self._core.hub.blocks_changed(command)
            case SubscriptionChanged():
                self._core.hub.subscription_changed(command)
            case EndSession():
                in_background(self._core.sessions.ended_elsewhere(command))
            case FenceSession():
                in_background(self._core.sessions.fenced_elsewhere(command))


@dataclass(frozen=True, slots=True)
class ServeInfo:
    """What to tell whoever started the server.

    Attributes:
        endpoints: where it listens.
        base_path: the path prefix under which everything is.
        application: the application to try first, or None if there are several and none is the default.
        authority: PEM file of the development authority that clients must trust, or None.
        data_dir: where it keeps its data.
    """

    endpoints: Sequence[Endpoint]
    base_path: str
    application: Application | None
    authority: Path | None
    data_dir: Path


class Server:
    """A server: a core, its gateways and its listeners.

    Args:
        core: an open core.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        settings = core.settings
        self._settings = settings
        self.timers = TimerWheel()
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self.authority: Path | None = None
        self._certificates = self._tls()
        self._listeners = Listeners(settings, self.timers, core.metrics, self._proxies, self._certificates)
        self._health = Health(checks={"database": self._check_store})
        self._websockets: set[WebSocketProtocol] = set()
        gateway = Gateway(
            applications=core.applications,
            sessions=core.sessions,
            users=core.users,
            hub=core.hub,
            reaper=core.reaper,
            signer=core.signer,
            clock=core.clock,
            timers=self.timers,
            metrics=core.metrics,
            limits=GatewayLimits(
                connect_timeout=settings.connect_timeout,
                max_subscriptions=settings.max_subscriptions,
                frames=Rate(settings.frame_rate, settings.frame_burst),
                requests=Rate(settings.request_rate, settings.request_burst),
                max_body=settings.max_body,
            ),
            stomp_limits=stomp.Limits(max_frame=settings.max_frame, max_body=settings.max_frame),
        )
        self._chatkitty = ChatKittyDoor(gateway, settings, self._proxies)
        self._routes = Routes(gateway, core.pictures, self._chatkitty.base_url)
        kandy = KandyGateway(
            applications=core.applications,
            users=core.users,
            sessions=core.sessions,
            subscriptions=core.subscriptions,
            messages=core.messages,
            credentials=core.credentials,
            logins=core.logins,
            hub=core.hub,
            reaper=core.reaper,
            signer=core.signer,
            clock=core.clock,
            timers=self.timers,
            metrics=core.metrics,
            limits=KandyLimits(
                requests=Rate(settings.request_rate, settings.request_burst),
                frames=Rate(settings.frame_rate, settings.frame_burst),
                guesses=Rate(settings.guess_rate, settings.guess_burst),
                max_body=settings.max_body,
            ),
            turn=Turn(core.turn_secret, settings.turn_lifetime),
            draining=lambda: self._health.draining,
        )
        self._kandy = KandyDoor(kandy, settings, self._proxies)
        self._kandy_rest = KandyRest(kandy, cors(settings.allowed_origins), settings.base_path)
        self._lag = LagMonitor(core.metrics)
        self._gauges: asyncio.Task[None] | None = None

    async def start(self) -> Sequence[Endpoint]:
        """Starts listening. Returns where.

        Raises:
            InvalidInput: an address cannot be listened on.
        """
        settings, metrics = self._settings, self.core.metrics
        self.timers.start(asyncio.get_running_loop())
        await self.core.reaper.start()
        app = build_app(
            [
                *credentialed(metrics, settings.allowed_origins, *self._chatkitty.sockjs.routes()),
                *body_limit(settings.max_upload + UPLOAD_OVERHEAD, *public(metrics, *self._routes.streams())),
                *public(metrics, *self._routes.files()),
                *admin_routes(self.core, ensure_token(settings.data_dir)),
            ],
            health=self._health,
            metrics=metrics,
            proxies=self._proxies,
            max_body=settings.max_frame,
            base_path=settings.base_path,
            serve_metrics=settings.metrics,
            mounts=[(prefix, self._kandy_rest) for prefix in PREFIXES],
        )
        factory = protocol_factory(
            self._accept,
            WebSocketSettings(
                max_message=settings.max_frame,
                max_write_buffer=settings.max_write_buffer,
                write_timeout=settings.write_timeout,
                ping_interval=settings.ping_interval,
                ping_timeout=settings.ping_timeout,
            ),
            self.timers,
            self._websockets,
        )
        endpoints = await self._listeners.start(app, factory)
        self._lag.start()
        self._gauges = asyncio.create_task(self._measure(), name="gauges")
        self._health.started = True
        return endpoints

    async def stop(self, kill: asyncio.Event | None = None) -> None:
        """Sends the clients away, each in its protocol's way, spread over the drain time, and stops.

        Args:
            kill: once set, nothing more is waited for.
        """
        self._health.draining = True
        await self._listeners.stop_accepting()
        await drain(
            [*self._chatkitty.connections(), *self._kandy.sockets()],
            self._settings.drain_seconds,
            lambda: len(self._websockets) + len(self._chatkitty.sockjs),
            CLOSE_TIMEOUT,
            kill,
        )
        for connection in list(self._websockets):
            connection.abort(CloseReason.DRAINING)
        self._chatkitty.sockjs.close_all()
        await self._listeners.close(CLOSE_TIMEOUT)
        # The connections' last words come by the transports' callbacks.
        await asyncio.sleep(0)
        await settle()
        if self._gauges is not None:
            self._gauges.cancel()
            await asyncio.gather(self._gauges, return_exceptions=True)
        await self.core.reaper.stop()
        self._lag.stop()
        self.timers.stop()

    def reload(self) -> None:
        """Reads again what may change while the server runs: the TLS certificate."""
        if self._certificates is not None:
            self._certificates.reload()

    def _accept(self, request: UpgradeRequest, peer: Peer) -> Accepted | Rejected:
        door = self._kandy if self._kandy.takes(request.path) else self._chatkitty
        return door.accept(request, peer)

    def _tls(self) -> Certificates | None:
        settings = self._settings
        if settings.tls_dev:
            made = development_certificate(settings.data_dir / "tls", [settings.host])
            self.authority = made.authority
            return Certificates(made.certificate)
        if settings.tls_cert is not None:
            return Certificates(settings.tls_cert, settings.tls_key)
        return None

    async def _check_store(self) -> None:
        await self.core.store.query(lambda tx: tx.applications.get(0))

    async def _measure(self) -> None:
        """Takes now and then the measures that change by themselves."""
        core = self.core
        while True:
            core.metrics.password_queue = core.passwords.waiting
            core.metrics.sessions_active = len(core.hub)
            with contextlib.suppress(OffhookError):
                page = await core.sessions.list(SessionFilter(live=True), PageRequest(size=1))
                core.metrics.sessions_suspended = max(0, page.total - len(core.hub))
            await asyncio.sleep(MEASURE_EVERY)


async def run(settings: Settings, announce: Callable[[ServeInfo], None]) -> None:
    """Runs a server until a signal ends it.

    Args:
        settings: all of them.
        announce: is told once the server listens.

    Raises:
        InvalidInput: a setting cannot be followed.
        Conflict: another process uses the data folder.
    """
    check_engines(settings)
    lock = DataLock(settings.data_dir)
    if not lock.acquire():
        raise Conflict(f"Another Offhook uses the data folder {settings.data_dir}")
    try:
        registry = None if settings.functions is None else load_functions(settings.functions)
        async with open_core(settings, registry) as core:
            await _first_application(core)
            server = Server(core)
            signals = Signals(server.reload)
            with signals.installed():
                endpoints = await server.start()
                urls = [endpoint.url + settings.base_path for endpoint in endpoints]
                lock.write(json.dumps({"pid": os.getpid(), "urls": urls, "node": core.sessions.node}).encode())
                announce(await _info(core, server, endpoints))
                try:
                    with tuned_gc() if settings.gc_freeze else contextlib.nullcontext():
                        await signals.stop.wait()
                finally:
                    await server.stop(signals.kill)
    finally:
        lock.release()


def serve(settings: Settings, announce: Callable[[ServeInfo], None]) -> None:
    """Runs a server in a new event loop until a signal ends it. See ``run``."""
    configure_logging(settings.log_level, settings.log_format)
    try:
        import uvloop
    except ImportError:
        asyncio.run(run(settings, announce))
    else:
        uvloop.run(run(settings, announce))


def check_engines(settings: Settings) -> None:
    """Refuses databases and brokers that this version has not.

    Raises:
        InvalidInput: the setting names one.
    """
    url = settings.database_url
    if url is not None and not url.startswith("sqlite:///"):
        raise InvalidInput("database_url must be sqlite:///PATH: this version has no other database", "database_url")
    if settings.broker_url != "memory://":
        raise InvalidInput("broker_url must be memory://: this version has no other broker", "broker_url")


async def _first_application(core: Core) -> None:
    if not await core.applications.list():
        await core.applications.create(DEFAULT_APPLICATION, domain=DEFAULT_DOMAIN)


async def _info(core: Core, server: Server, endpoints: Sequence[Endpoint]) -> ServeInfo:
    applications = await core.applications.list()
    named = [application for application in applications if application.name == DEFAULT_APPLICATION]
    first = next(iter(named or applications[:1]), None)
    settings = core.settings
    return ServeInfo(endpoints, settings.base_path, first, server.authority, settings.data_dir)


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
