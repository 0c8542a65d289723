"""A small fleet comes back after a real kill, and is told of everything once it is back."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from tests.databases import SERVER
from tests.redis_servers import REDIS

from offhook.bench.client import LoadFailed
from offhook.bench.fleet import EARLY, Plan, measure_fleet, raise_open_files, report
from offhook.bench.shared import Servers


@pytest.mark.timeout(90)
async def test_everybody_comes_back_and_misses_nothing(tmp_path: Path) -> None:
    done = await measure_fleet(Plan(sessions=24, initial=0.2), Servers(SERVER, REDIS), tmp_path)
    assert (done.sessions, done.returned) == (24, 12)
    assert (done.lost, done.afresh) == (0, 0)
    assert done.events > EARLY
    assert done.seconds >= done.away[1] >= done.away[0] > 0
    assert done.attempt[1] >= done.attempt[0] > 0
    assert min(done.spent.offhook, done.clients) > 0
    assert "12 sessions were resumed at the other within" in report(done)


def test_more_sessions_than_the_machine_has_files_are_refused() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("the machine allows any number of open files")
    try:
        with pytest.raises(LoadFailed, match=f"the machine allows {hard}"):
            raise_open_files(hard)
        raise_open_files(16)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
