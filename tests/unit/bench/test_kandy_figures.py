"""The measurements of Kandy's clients work on a real server and a real floor, in small."""

from __future__ import annotations

import pytest

from offhook.bench import kandy_figures
from offhook.bench.client import LoadFailed
from offhook.bench.figures import Sizes
from offhook.bench.kandy import open_sockets
from offhook.bench.processes import running_floor, running_server
from offhook.bench.seed import Subscriber, seed

SMALL = Sizes(sessions=40, rounds=1, receivers=20, events=8, idle=40)


@pytest.mark.timeout(120)
async def test_every_measurement_gives_a_figure(tmp_path_factory: pytest.TempPathFactory) -> None:
    data_dir = tmp_path_factory.mktemp("bench") / "data"
    seeded = await seed(data_dir, 1, 0, 100)
    assert len({subscriber.token for subscriber in seeded.subscribers}) == 100
    async with running_floor() as floor, running_server(data_dir) as server:
        told = await kandy_figures.notifications(server, floor, seeded, SMALL)
        # How the figures compare is no matter for so few events on a busy machine.
        assert min(told.message, told.message_floor, told.device_floor, told.presence, told.presence_floor) > 0
        assert told.device >= 0
        start = await kandy_figures.subscription_start(server, seeded, SMALL)
        assert start > await kandy_figures.two_handshakes_floor(floor, SMALL) > 0
        assert await kandy_figures.memory(server, seeded, SMALL.idle) < 1 << 20


@pytest.mark.timeout(60)
async def test_a_refused_subscription_fails_the_measurement(tmp_path_factory: pytest.TempPathFactory) -> None:
    data_dir = tmp_path_factory.mktemp("bench") / "data"
    seeded = await seed(data_dir, 0, 0, 2)
    one, other = seeded.subscribers
    async with running_server(data_dir) as server:
        target = server.target(seeded.api_key)
        with pytest.raises(LoadFailed, match="401"):
            await open_sockets(target, [Subscriber(one.name, other.token)])
        (socket,) = await open_sockets(target, [one])
        assert socket.error is None
        socket.abort()
