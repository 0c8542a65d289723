"""What is read from the system is true of a process whose use is known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.bench.measure import CPU, cpu_seconds, open_files, percentile, resident_bytes

WORKER = """
import sys, threading, time
kept = []
def burn():
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        pass
for line in sys.stdin:
    if line.startswith("burn"):
        thread = threading.Thread(target=burn)
        thread.start()
        thread.join()
    elif line.startswith("keep"):
        kept.append(bytearray(b"x" * (32 << 20)))
    elif line.startswith("open"):
        kept.append(open("/dev/null"))
    print("done", flush=True)
"""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    tell(process, "wake")
    yield process
    process.kill()
    process.communicate()


def tell(process: subprocess.Popen[str], what: str) -> None:
    """Has the worker do something and waits until it is done."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_cpu_time_counts_all_threads(worker: subprocess.Popen[str]) -> None:
    with CPU(worker.pid) as burnt:
        tell(worker, "burn")
    with CPU(worker.pid) as idle:
        tell(worker, "wake")
    assert 0.09 < burnt.seconds < 0.3
    assert 0 < idle.seconds < 0.05


def test_memory_and_files_are_counted(worker: subprocess.Popen[str]) -> None:
    memory, files = resident_bytes(worker.pid), open_files(worker.pid)
    tell(worker, "keep")
    tell(worker, "open")
    assert 31 << 20 < resident_bytes(worker.pid) - memory < 40 << 20
    assert open_files(worker.pid) == files + 1


def test_a_process_that_is_gone_is_an_error(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.communicate()
    with pytest.raises(OSError, match=r"."):
        cpu_seconds(worker.pid)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_percentile_is_the_smallest_value_that_covers_the_share(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values) or found == min(values)


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)
