"""The measurements work on a real server and a real floor, in small."""

from __future__ import annotations

import pytest

from offhook.bench import figures
from offhook.bench.client import LoadFailed, close_sessions, open_sessions
from offhook.bench.figures import TOGETHER, Sizes
from offhook.bench.processes import running_floor, running_server
from offhook.bench.seed import PASSWORD, seed

SMALL = Sizes(sessions=40, rounds=1, receivers=20, events=8, idle=40, idle_tls=10, logins=6)


@pytest.mark.timeout(120)
async def test_every_measurement_gives_a_figure(tmp_path_factory: pytest.TempPathFactory) -> None:
    data_dir = tmp_path_factory.mktemp("bench") / "data"
    seeded = await seed(data_dir, SMALL.sessions, SMALL.logins)
    async with running_floor() as floor, running_server(data_dir) as server:
        fan = await figures.fan_out(server, floor, seeded, SMALL)
        # How the figures compare is no matter for so few events on a busy machine.
        assert min(fan.floor, fan.floor_together, fan.single, fan.acked, fan.together) > 0
        assert 1 <= fan.batch <= TOGETHER
        start = await figures.session_start(server, seeded, SMALL)
        assert start > await figures.handshake_floor(floor, SMALL) > 0
        assert await figures.session_start(server, seeded, SMALL, tls=True) > 0
        peace, busy, relays = await figures.relay_latency(server, seeded, SMALL)
        assert peace > 0
        assert busy > 0
        assert relays > 0
        assert await figures.memory(server, seeded, SMALL.idle) < 1 << 20


@pytest.mark.timeout(60)
async def test_a_refused_session_fails_the_measurement(tmp_path_factory: pytest.TempPathFactory) -> None:
    data_dir = tmp_path_factory.mktemp("bench") / "data"
    seeded = await seed(data_dir, 1, 1)
    async with running_server(data_dir) as server:
        with pytest.raises(LoadFailed, match="AccessDeniedError"):
            await open_sessions(server.target("no-such-key"), seeded.guests)
        with pytest.raises(LoadFailed, match="AccessDeniedError"):
            await open_sessions(server.target(seeded.api_key), seeded.members, password="wrong")
        (session,) = await open_sessions(server.target(seeded.api_key), seeded.members, password=PASSWORD)
        assert session.user_id > 0
        await close_sessions([session])
