"""Sockets of one process and of several on the same ports."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from offhook.errors import InvalidInput
from offhook.server.asgi import Health, build_app
from offhook.server.binding import METRICS, PLAIN, SECURE, Slot, bind, bind_slots, close_all
from offhook.server.listeners import Listeners
from offhook.server.metrics import Metrics
from offhook.server.proxies import TrustedProxies
from offhook.server.timers import TimerWheel
from offhook.settings import Settings
from offhook.testing.process import free_port


def settings_of(**given: object) -> Settings:
    return Settings.model_validate({"port": 0, "tls_port": 0, **given})


@contextlib.contextmanager
def slots_of(settings: Settings, count: int) -> Iterator[list[Slot]]:
    slots = bind_slots(settings, count)
    try:
        yield slots
    finally:
        for slot in slots:
            slot.close()


def ports_of(slot: Slot) -> dict[str, int]:
    return {name: sock.getsockname()[1] for name, sock in slot.sockets}


def test_slots_share_the_ports_that_the_first_one_got() -> None:
    first_metrics = free_port()
    with slots_of(settings_of(tls_dev=True, metrics_port=first_metrics), 2) as (one, other):
        ports, others = ports_of(one), ports_of(other)
        assert ports[PLAIN] == others[PLAIN] != 0
        assert ports[SECURE] == others[SECURE] not in (0, ports[PLAIN])
        assert (ports[METRICS], others[METRICS]) == (first_metrics, first_metrics + 1)
        assert not {sock.fileno() for _, sock in one.sockets} & {sock.fileno() for _, sock in other.sockets}


def test_all_addresses_of_a_host_share_a_port() -> None:
    with slots_of(settings_of(host="localhost"), 2) as slots:
        assert len({sock.getsockname()[1] for slot in slots for _, sock in slot.sockets}) == 1


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_on_which_somebody_listens_is_refused(shared: bool) -> None:
    taken = bind("127.0.0.1", 0, "port", shared=shared)
    try:
        for sock in taken:
            sock.listen()
        with pytest.raises(InvalidInput, match="in use by another program"):
            bind_slots(settings_of(port=taken[0].getsockname()[1]), 2)
    finally:
        close_all(taken)


def test_a_port_that_another_supervisor_is_about_to_serve_is_refused() -> None:
    with slots_of(settings_of(), 2) as slots:
        # Its workers start still: nobody listens yet.
        port = ports_of(slots[0])[PLAIN]
        with pytest.raises(InvalidInput, match="in use by another program"):
            bind_slots(settings_of(port=port), 2)


def test_nothing_stays_bound_if_one_port_is_refused() -> None:
    port = free_port()
    taken = bind("127.0.0.1", 0, "tls_port")
    try:
        with pytest.raises(InvalidInput, match="in use by another program"):
            bind_slots(settings_of(port=port, tls_dev=True, tls_port=taken[0].getsockname()[1]), 2)
    finally:
        close_all(taken)
    close_all(bind("127.0.0.1", port, "port"))


def test_every_worker_needs_room_for_its_metrics() -> None:
    with pytest.raises(InvalidInput, match="metrics_port leaves no room"):
        bind_slots(settings_of(metrics_port=65535), 2)


async def test_nobody_is_let_in_before_a_worker_listens() -> None:
    with slots_of(settings_of(), 1) as (slot,), socket.socket() as visitor:
        visitor.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.get_running_loop().sock_connect(visitor, ("127.0.0.1", ports_of(slot)[PLAIN]))


async def fetch(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        async with asyncio.timeout(10):
            return await reader.read()


async def test_the_metrics_port_serves_nothing_else() -> None:
    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    timers, metrics, proxies = TimerWheel(0.02), Metrics(), TrustedProxies(())
    metrics.worker = 1
    timers.start(asyncio.get_running_loop())
    health = Health(started=True)
    app = build_app([Route("/hello", hello)], health=health, metrics=metrics, proxies=proxies, max_body=1000)
    watch_app = build_app([], health=health, metrics=metrics, proxies=proxies, max_body=1000)
    settings = settings_of(metrics_port=free_port())
    with slots_of(settings, 1) as (slot,):
        listeners = Listeners(settings, timers, metrics, proxies, None, slot.sockets)
        endpoints = await listeners.start(app, None, watch_app)
        try:
            ports = ports_of(slot)
            assert [endpoint.port for endpoint in endpoints] == [ports[PLAIN]]
            assert (await fetch(ports[PLAIN], "/hello")).endswith(b"hello")
            assert b" 404 " in await fetch(ports[METRICS], "/hello")
            assert b" 200 " in await fetch(ports[METRICS], "/readyz")
            shown = await fetch(ports[METRICS], "/metrics")
            assert b'offhook_deliveries_total{worker="1"} 0.0' in shown
            assert b'offhook_http_requests_total{method="GET",status="404",worker="1"} 1.0' in shown
        finally:
            await listeners.close()
            timers.stop()
