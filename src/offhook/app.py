"""The composition root: settings become a running server. The only place that knows every part.

``core`` puts store, broker and services together; here the gateways and the listeners are put around them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from offhook.broker import MEMORY
from offhook.codes import CloseReason
from offhook.core import Core, check_engines, open_core
from offhook.domain.limits import Rate
from offhook.domain.sessions import SessionState
from offhook.domain.values import PageRequest
from offhook.errors import Conflict, OffhookError
from offhook.functions.loader import load_functions
from offhook.gateways.admin import admin_routes, ensure_token
from offhook.gateways.background import settle
from offhook.gateways.chatkitty.acceptor import ChatKittyDoor
from offhook.gateways.chatkitty.gateway import Gateway
from offhook.gateways.chatkitty.gateway import Limits as GatewayLimits
from offhook.gateways.chatkitty.routes import Routes
from offhook.gateways.kandy.acceptor import KandyDoor
from offhook.gateways.kandy.gateway import Gateway as KandyGateway
from offhook.gateways.kandy.gateway import Limits as KandyLimits
from offhook.gateways.kandy.gateway import Turn
from offhook.gateways.kandy.rest import PREFIXES, KandyRest, cors
from offhook.ports import SessionFilter
from offhook.protocols import stomp
from offhook.protocols.websocket import UpgradeRequest
from offhook.server.asgi import Health, body_limit, build_app
from offhook.server.binding import Bound
from offhook.server.control import Link
from offhook.server.cors import credentialed, public
from offhook.server.info import ServeInfo
from offhook.server.lifecycle import LagMonitor, Signals, drain, tuned_gc
from offhook.server.listeners import Endpoint, Listeners
from offhook.server.logs import configure_logging
from offhook.server.notify import notify_ready, notify_stopping
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
from offhook.settings import Settings
from offhook.storage import DataLock
from offhook.storage.lock import note

DEFAULT_APPLICATION = "default"
DEFAULT_DOMAIN = "example.com"
UPLOAD_OVERHEAD = 64 * 1024
"""Bytes that a form adds to the file in it."""
CLOSE_TIMEOUT = 5.0
MEASURE_EVERY = 5.0

log = structlog.get_logger(__name__)


class Server:
    """A server: a core, its gateways and its listeners.

    Args:
        core: an open core.
        sockets: those to listen on, if they are given to it.
    """

    def __init__(self, core: Core, sockets: Sequence[Bound] = ()) -> None:
        self.core = core
        settings = core.settings
        self._settings = settings
        self.timers = TimerWheel()
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self.authority: Path | None = None
        self._certificates = self._tls()
        self._listeners = Listeners(settings, self.timers, core.metrics, self._proxies, self._certificates, sockets)
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
        nodes = None if settings.broker_url == MEMORY else (core.broker, core.questions)
        self._chatkitty = ChatKittyDoor(gateway, settings, self._proxies, nodes)
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
        watch_app = build_app(
            [],
            health=self._health,
            metrics=metrics,
            proxies=self._proxies,
            max_body=settings.max_frame,
            serve_metrics=settings.metrics,
        )
        endpoints = await self._listeners.start(app, factory, watch_app)
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
        self._chatkitty.sockjs.drain()
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
        if self._health.draining:
            return Rejected(503, "The server stops")
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
            core.metrics.broker_connected = core.broker.connected
            core.metrics.broker_events = core.broker.measures
            with contextlib.suppress(OffhookError):
                suspended = SessionFilter(live=True, state=SessionState.SUSPENDED)
                core.metrics.sessions_waiting = (await core.sessions.list(suspended, PageRequest(size=1))).total
            await asyncio.sleep(MEASURE_EVERY)


async def run(settings: Settings, announce: Callable[[ServeInfo], None], link: Link | None = None) -> None:
    """Runs a server until a signal ends it.

    Args:
        settings: all of them.
        announce: is told once the server listens.
        link: to the supervisor, if this process is its worker. Then it listens on the supervisor's sockets, the
            data folder is the supervisor's, and the server ends as by a signal when the supervisor is gone.

    Raises:
        InvalidInput: a setting cannot be followed.
        Conflict: another process uses the data folder.
    """
    check_engines(settings)
    lock = DataLock(settings.data_dir) if link is None else None
    if lock is not None and not lock.acquire():
        raise Conflict(f"Another Offhook uses the data folder {settings.data_dir}")
    try:
        registry = None if settings.functions is None else load_functions(settings.functions)
        async with open_core(settings, registry) as core:
            if link is not None:
                core.metrics.worker = link.assignment.slot
            await _first_application(core)
            server = Server(core, () if link is None else link.sockets())
            signals = Signals(server.reload)
            with signals.installed():
                info = await _info(core, server, await server.start())
                if lock is not None:
                    lock.write(note(os.getpid(), info.urls, [info.node]))
                announce(info)
                notify_ready()
                lost = None if link is None else asyncio.create_task(_follow(link, signals), name="supervisor")
                try:
                    with tuned_gc() if settings.gc_freeze else contextlib.nullcontext():
                        await signals.stop.wait()
                finally:
                    notify_stopping()
                    if lost is not None:
                        lost.cancel()
                    await server.stop(signals.kill)
    finally:
        if lock is not None:
            lock.release()


async def _follow(link: Link, signals: Signals) -> None:
    """Ends a worker whose supervisor is gone."""
    await link.lost()
    log.warning("the supervisor is gone")
    signals.stop.set()


def serve(settings: Settings, announce: Callable[[ServeInfo], None], link: Link | None = None) -> None:
    """Runs a server in a new event loop until a signal ends it. See ``run``."""
    configure_logging(settings.log_level, settings.log_format)
    try:
        import uvloop
    except ImportError:
        asyncio.run(run(settings, announce, link))
    else:
        uvloop.run(run(settings, announce, link))


async def _first_application(core: Core) -> None:
    if not await core.applications.list():
        # Another process of the same system may make it at the same time.
        with contextlib.suppress(Conflict):
            await core.applications.create(DEFAULT_APPLICATION, domain=DEFAULT_DOMAIN)


async def _info(core: Core, server: Server, endpoints: Sequence[Endpoint]) -> ServeInfo:
    applications = await core.applications.list()
    named = [application for application in applications if application.name == DEFAULT_APPLICATION]
    first = next(iter(named or applications[:1]), None)
    settings = core.settings
    return ServeInfo(endpoints, settings.base_path, first, server.authority, settings.data_dir, core.sessions.node)
