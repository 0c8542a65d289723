"""A supervisor of small workers as a process, for tests that send it signals. It is told what to do as JSON."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from tests.unit.server.worker_program import Payload

from offhook.errors import InvalidInput
from offhook.server.binding import bind_slots
from offhook.server.logs import configure_logging
from offhook.server.supervisor import Patience, Supervisor
from offhook.server.workers import Worker, WorkerFailed
from offhook.settings import Settings


class Orders(msgspec.Struct):
    """What it is to do.

    Attributes:
        folder: where its files are.
        workers: how many slots there are.
        patience: see ``Patience``.
        settings: of the listeners.
    """

    folder: str
    workers: int
    patience: dict[str, float]
    settings: dict[str, int]


class Said(msgspec.Struct):
    """What it says, a line each time.

    Attributes:
        what: ``bound``, ``changed``, ``started`` or ``failed``.
        port: where the workers serve.
        workers: slot → process id of those that serve.
        words: why it failed.
    """

    what: str
    port: int
    workers: dict[int, int] = {}
    words: str = ""


def main() -> None:
    configure_logging("info", "json")
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    folder = Path(orders.folder)
    settings = Settings.model_validate(orders.settings)
    slots = bind_slots(settings, orders.workers)
    port = int(slots[0].sockets[0][1].getsockname()[1])
    generation = 0

    def say(what: str, serving: Sequence[Worker] = (), words: str = "") -> None:
        said = Said(what, port, {worker.slot.number: worker.pid for worker in serving}, words)
        os.write(sys.stdout.fileno(), msgspec.json.encode(said) + b"\n")

    def payload() -> str:
        nonlocal generation
        if (folder / "manner").read_text() == "unreadable":
            raise InvalidInput("The settings cannot be read")
        generation += 1
        told = Payload(generation, str(folder / "manner"), str(folder / "answered"), settings.model_dump_json())
        return msgspec.json.encode(told).decode()

    say("bound")
    supervisor = Supervisor(
        slots,
        [sys.executable, "-m", "tests.unit.server.worker_program"],
        payload(),
        reload=payload,
        started=lambda serving: say("started", serving),
        changed=lambda serving: say("changed", serving),
        patience=Patience(**orders.patience),  # type: ignore[arg-type]
    )
    try:
        asyncio.run(supervisor.run())
    except WorkerFailed as error:
        say("failed", words=f"{error.reason}: {error.message}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
