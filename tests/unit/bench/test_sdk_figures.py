"""The measurements of the Python SDK's clients work on a real server and a real floor, in small."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from tests.support import free_port

from offhook.bench import sdk, sdk_figures
from offhook.bench.client import LoadFailed
from offhook.bench.figures import Sizes
from offhook.bench.processes import running_floor, running_module, running_server
from offhook.bench.report import MAX_CLIENT
from offhook.bench.seed import seed

SMALL = Sizes(rounds=1, events=5, clients=40)


@pytest.mark.timeout(180)
async def test_every_measurement_gives_a_figure(tmp_path_factory: pytest.TempPathFactory) -> None:
    data_dir = tmp_path_factory.mktemp("bench") / "data"
    each = SMALL.clients // 2 + sdk_figures.WARM
    seeded = await seed(data_dir, each, 2, each + 2)
    async with running_floor() as floor, running_server(data_dir) as server:
        costs = await sdk_figures.clients(server, floor, seeded, SMALL)
    assert list(costs) == ["ChatKitty", "Kandy Link"]
    for cost in costs.values():
        # How they compare is no matter for so few clients on a busy machine.
        assert min(cost.start, cost.event, cost.bare_start, cost.bare_event) > 0
        assert cost.start < 1
        assert cost.event < 0.01
        assert cost.memory < 20 * MAX_CLIENT * 1024


@pytest.mark.timeout(60)
async def test_what_the_clients_cannot_do_fails_the_measurement() -> None:
    async with running_floor() as floor, sdk_figures.worker() as clients:
        with pytest.raises(LoadFailed, match="SDK's clients: ChatKittyConnectionError"):
            await clients.order(sdk.StartChatKitty(f"127.0.0.1:{free_port()}", "key", ("jane",)))
        assert await clients.order(sdk.StartBare(f"ws://127.0.0.1:{floor.port}/", 3)) == 3
        assert await clients.order(sdk.End()) == 0


@pytest.mark.timeout(60)
async def test_a_process_that_ends_fails_the_measurement() -> None:
    async with running_module("offhook.bench.measure") as process:
        with pytest.raises(LoadFailed, match="ended"):
            await sdk_figures.Worker(process).order(sdk.End())


async def test_orders_are_answered_in_turn() -> None:
    """Events are counted from the first Expect on."""
    answers: list[sdk.Done] = []
    lines: list[bytes] = []
    write: Callable[[bytes], None] = lambda line: answers.append(msgspec.json.decode(line, type=sdk.Done))  # noqa: E731

    async def read() -> bytes:
        return lines.pop(0) if lines else b""

    async with running_floor() as floor:
        orders: list[sdk.Order] = [sdk.StartBare(f"ws://127.0.0.1:{floor.port}/", 4), sdk.Expect(0), sdk.End()]
        lines += [msgspec.json.encode(order) for order in orders]
        async with asyncio.timeout(20):
            await sdk.serve(read, write)
    assert answers == [sdk.Done(4), sdk.Done(4), sdk.Done(0)]
