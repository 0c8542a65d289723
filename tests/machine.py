"""A machine of the test's own, as far as the network goes: a namespace, with a cable to clients and one to a broker.

Nothing leaves this machine: both cables (``veth`` pairs) end on it. Their addresses are of the range that is set
apart for measurements (RFC 2544).
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """A network namespace, joined by two cables to the one that the tests run in.

    Attributes:
        name: of the namespace.
        address: where clients find it.
        broker_address: where it finds what listens at this end of its second cable.
    """

    name: str
    address: str
    broker_address: str

    @property
    def enter(self) -> Sequence[str]:
        """What goes before a command that is to run there."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Unplugs the second cable at this end: nothing passes any more, and nobody says so."""
        _ip("link", "set", f"{self.name}b", "down")

    def mend(self) -> None:
        """Plugs it in again."""
        _ip("link", "set", f"{self.name}b", "up")


@functools.cache
def can_be_made() -> bool:
    """Whether this user may make network namespaces here."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    with contextlib.suppress(AssertionError), machine():
        return True
    return False


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """Makes a machine, and takes it away in the end, after everything that runs on it has ended.

    Raises:
        AssertionError: this user may not.
    """
    # As short as the names of network devices must be.
    name = f"oh{secrets.token_hex(4)}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        net = f"198.{18 + secrets.randbelow(2)}.{secrets.randbelow(256)}"
        # Two networks of four addresses in these 256, of which other tests take others.
        block = 8 * secrets.randbelow(32)
        for cable, first in (("a", block), ("b", block + 4)):
            here, there = f"{name}{cable}", f"{cable}0"
            _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
            _ip("address", "add", f"{net}.{first + 1}/30", "dev", here)
            _ip("-n", name, "address", "add", f"{net}.{first + 2}/30", "dev", there)
            _ip("link", "set", here, "up")
            _ip("-n", name, "link", "set", there, "up")
        yield Machine(name, f"{net}.{block + 2}", f"{net}.{block + 5}")
    finally:
        # Its end of the cables goes with it, and so ours.
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
