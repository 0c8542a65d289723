"""A small worker for tests of the supervisor: Offhook's listeners with two routes, and ways to misbehave.

What it does is read at its start from the file that its payload names, so that later workers can do otherwise.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import uvloop
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from offhook.server.asgi import Health, build_app
from offhook.server.control import Failed, Link, Ready
from offhook.server.lifecycle import Signals
from offhook.server.listeners import Listeners
from offhook.server.logs import configure_logging, get_logger
from offhook.server.metrics import Metrics
from offhook.server.proxies import TrustedProxies
from offhook.server.timers import TimerWheel
from offhook.settings import settled


class Payload(msgspec.Struct):
    """What it is told.

    Attributes:
        generation: to be told on.
        manner: file with what it is to do: ``serve``, ``refuse`` (say that it failed), ``vanish`` (end without a
            word), ``hang`` (never become ready) or ``stay`` (do not end when asked once).
        answered: file to which the names of answered requests are added.
        settings: of the listeners, as JSON.
    """

    generation: int
    manner: str
    answered: str
    settings: str


async def serve(link: Link, payload: Payload, manner: str) -> None:
    answered = os.open(payload.answered, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def answer(request: Request) -> Response:
        os.write(answered, request.path_params["name"].encode() + b"\n")
        return JSONResponse({"pid": os.getpid(), "slot": link.assignment.slot, "generation": payload.generation})

    async def around(request: Request) -> Response:
        return JSONResponse({"environment": sorted(os.environ), "descriptors": len(os.listdir("/proc/self/fd"))})

    timers, metrics, proxies = TimerWheel(0.02), Metrics(), TrustedProxies(())
    timers.start(asyncio.get_running_loop())
    listeners = Listeners(settled(payload.settings), timers, metrics, proxies, None, link.sockets())
    routes = [Route("/answer/{name}", answer), Route("/around", around)]
    app = build_app(routes, health=Health(started=True), metrics=metrics, proxies=proxies, max_body=1000)
    signals = Signals(lambda: None)
    with signals.installed():
        endpoints = await listeners.start(app, None)
        link.report(Ready(f"node-{os.getpid()}", tuple(endpoint.url for endpoint in endpoints), "hello"))
        lost = asyncio.create_task(link.lost())
        stop = asyncio.create_task(signals.stop.wait())
        await asyncio.wait({lost, stop}, return_when=asyncio.FIRST_COMPLETED)
        await listeners.stop_accepting()
        get_logger(__name__).info("accepts no more")
        if manner == "stay":
            await signals.kill.wait()
        await listeners.close()
        for task in (lost, stop):
            task.cancel()
    timers.stop()


def main() -> None:
    configure_logging("info", "json")
    link = Link(int(sys.argv[1]))
    payload = msgspec.json.decode(link.assignment.payload, type=Payload)
    manner = Path(payload.manner).read_text()
    match manner:
        case "refuse":
            link.report(Failed("unavailable", "There is no database", 4))
            sys.exit(4)
        case "vanish":
            sys.exit(3)
        case "hang":
            uvloop.run(link.lost())
        case _:
            uvloop.run(serve(link, payload, manner))


if __name__ == "__main__":
    main()
