"""The lock on the data folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from offhook.storage import DataLock

HOLD = """
import sys
from pathlib import Path
from offhook.storage.lock import DataLock
lock = DataLock(Path(sys.argv[1]))
assert lock.acquire()
lock.write(b"held by a child")
print("held", flush=True)
sys.stdin.read()
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    one, other = DataLock(folder), DataLock(folder)
    assert one.read() == b""
    assert one.acquire()
    assert one.acquire()
    assert not other.acquire()
    one.release()
    one.release()
    assert other.acquire()
    assert not one.acquire()
    other.release()


def test_the_holder_leaves_a_note_that_goes_with_the_lock(tmp_path: Path) -> None:
    lock, reader = DataLock(tmp_path), DataLock(tmp_path)
    with pytest.raises(RuntimeError):
        lock.write(b"x")
    assert lock.acquire()
    lock.write(b"a longer note")
    lock.write(b"short")
    assert reader.read() == b"short"
    assert (reader.path.stat().st_mode & 0o777) == 0o600
    lock.release()
    assert reader.read() == b""


def test_the_death_of_its_holder_frees_the_lock(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": "src"}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        lock = DataLock(tmp_path)
        assert not lock.acquire()
        assert lock.read() == b"held by a child"
        child.send_signal(signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
    assert lock.acquire()
    assert lock.read() == b""
    lock.release()
