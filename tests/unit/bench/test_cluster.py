"""Several processes are measured on a real PostgreSQL and Redis, in small; what is reported follows from that."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.databases import SERVER, execute
from tests.redis_servers import REDIS

from offhook.bench.client import Target, close_sessions, open_sessions
from offhook.bench.cluster import ALONE, BESIDE, SHARING, TWO, Outcome, measure_cluster
from offhook.bench.cluster_report import KINDS, capacity, cluster_document, cluster_text, gain, start_ratio
from offhook.bench.cluster_works import ClusterSizes, Latency
from offhook.bench.figures import QUICK
from offhook.bench.processes import running_server
from offhook.bench.report import CLUSTER, document, measure_all, text
from offhook.bench.seed import seed
from offhook.bench.shared import Servers, ServersMissing, Spending, Spent, shared_servers
from offhook.testing.process import free_port

SERVERS = Servers(SERVER, REDIS)
SMALL = ClusterSizes(rounds=1, sessions=12, at_once=4, pairs=4, messages=2, watched=2, watchers=4, changes=2, samples=5)


@pytest.mark.timeout(120)
async def test_every_system_is_measured_at_the_same_work(tmp_path: Path) -> None:
    outcomes = await measure_cluster(SMALL, SERVERS, tmp_path)
    assert {name: outcome.processes for name, outcome in outcomes.items()} == {ALONE: 1, SHARING: 1, BESIDE: 1, TWO: 2}
    for name, outcome in outcomes.items():
        assert tuple(outcome.each) == KINDS
        assert outcome.memory < 1 << 22
        assert outcome.near.worst >= outcome.near.typical > 0
        assert (outcome.far is None) is (name != TWO)
        for spent in outcome.each.values():
            assert min(spent.offhook, spent.seconds) > 0
            assert (spent.postgresql is None) is (name == ALONE)


async def test_the_database_is_gone_afterwards() -> None:
    async with shared_servers(SERVERS) as shared:
        name = shared.settings["database_url"].rpartition("/")[2]
        assert await execute("SELECT 1 FROM pg_database WHERE datname = $1", name, url=SERVER)
    assert not await execute("SELECT 1 FROM pg_database WHERE datname = $1", name, url=SERVER)


async def test_the_backends_of_the_database_are_measured_and_no_others() -> None:
    if not any(Path(f"/proc/{pid}/comm").read_text() == "postgres\n" for pid in _processes()):
        pytest.skip("PostgreSQL is on another machine")
    busy = "SELECT count(md5(number::text)) FROM generate_series(1, 300000) AS number"
    async with shared_servers(SERVERS) as shared:
        async with Spending([os.getpid()], shared) as spending:
            await execute(busy, url=SERVER)
        assert spending.spent.postgresql == 0
        backends, _ = await shared.cpu()
        assert backends == {}


@pytest.mark.parametrize(
    ("servers", "missing"),
    [
        (Servers(SERVER, f"redis://127.0.0.1:{free_port()}/0"), "Redis cannot be used: .*127.0.0.1"),
        (
            Servers(f"postgresql://postgres:secret@127.0.0.1:{free_port()}/postgres", REDIS),
            "PostgreSQL cannot be used: .*127.0.0.1",
        ),
        (Servers("postgres", REDIS), "database_url must be like"),
    ],
)
async def test_a_server_that_is_missing_is_named_without_its_password(servers: Servers, missing: str) -> None:
    with pytest.raises(ServersMissing, match=missing) as raised:
        async with shared_servers(servers):
            pass
    assert "secret" not in str(raised.value)


async def test_without_servers_the_section_says_so_and_is_left_out(tmp_path: Path) -> None:
    servers = Servers(SERVER, f"redis://127.0.0.1:{free_port()}/0")
    report = await measure_all(QUICK, SMALL, servers, tmp_path, [CLUSTER])
    assert report.cluster is None
    assert text(report, 1.0).startswith("Cluster: left out, Redis cannot be used: ")
    assert json.loads(document(report, 1.0))["note"] == report.note


@pytest.mark.timeout(60)
async def test_a_session_is_resumed_by_its_token(tmp_path: Path) -> None:
    seeded = await seed(tmp_path / "data", 2)
    async with running_server(tmp_path / "data") as server:
        target: Target = server.target(seeded.api_key)
        first, second = await open_sessions(target, seeded.guests)
        assert (first.recovered, second.recovered) == (None, None)
        tokens = {session.user: session.token for session in (first, second)}
        await close_sessions([first, second])
        back = await open_sessions(target, seeded.guests, resumes=[tokens[name] for name in seeded.guests])
        assert [session.recovered for session in back] == [True, True]
        await close_sessions(back)


def outcome(processes: int, micro: float, *, shared: bool) -> Outcome:
    used = 2e-4 if shared else None
    spent = Spent(micro / 1e6, used, used, 0.002)
    return Outcome(processes, dict.fromkeys(KINDS, spent), 20480.0, Latency(0.001, 0.004), None)


def test_capacity_is_processes_by_cost() -> None:
    outcomes = {
        ALONE: outcome(1, 500, shared=False),
        SHARING: outcome(1, 1000, shared=True),
        BESIDE: outcome(1, 1200, shared=True),
        TWO: outcome(2, 1250, shared=True),
    }
    assert capacity(outcomes[SHARING], "message") == pytest.approx(1000)
    assert capacity(outcomes[TWO], "message") == pytest.approx(1600)
    assert gain(outcomes, "message") == pytest.approx(1.92)
    assert gain(outcomes, "message", SHARING) == pytest.approx(1.6)
    assert start_ratio(outcomes) == pytest.approx(1.25)
    shown = cluster_text(outcomes)
    assert "one, message: 1.92x  target at least 1.7x  yes  (to one undisturbed: 1.60x)" in shown
    assert "1.25x  target at most 1.5x  yes  (to one beside another: 1.04x, to one on SQLite: 2.50x)" in shown
    (row,) = [line for line in shown.splitlines() if line.startswith("message ") and TWO in line and "/s" in line]
    assert row.split() == ["message", *TWO.split(), "1250", "200", "200", "500/s", "1600/s"]
    outcomes[BESIDE] = outcome(1, 1000, shared=True)
    assert "one, message: 1.60x  target at least 1.7x  no" in cluster_text(outcomes)
    assert cluster_document(outcomes)["start_two_to_one"] == pytest.approx(1.25)


def _processes() -> list[int]:
    listed = subprocess.run(["ps", "-e", "-o", "pid="], capture_output=True, text=True, check=True)
    return [pid for pid in map(int, listed.stdout.split()) if Path(f"/proc/{pid}/comm").exists()]
