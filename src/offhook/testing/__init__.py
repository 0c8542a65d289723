"""Helpers for tests of programs that talk to Offhook: a real server, a network that breaks, and a check for leaks.

::

    from offhook.testing import FaultProxy, TestServer, leaks

    async def test_my_program_survives_a_cut() -> None:
        async with leaks(), TestServer() as server, FaultProxy(server.host) as proxy:
            ...
            proxy.cut()

They need no test framework. :class:`TestServer` needs ``offhook[server]``; all else comes with the SDK.
"""

from __future__ import annotations

from offhook.testing.leak_check import Descriptor, LeakCheck, Leaked, leaks
from offhook.testing.process import CommandFailed, ServerFailed, ServerMissing
from offhook.testing.proxy import FaultProxy
from offhook.testing.server import DEMO_USERS, AdminRefused, BlockingTestServer, SessionRecord, TestServer

__all__ = [
    "DEMO_USERS",
    "AdminRefused",
    "BlockingTestServer",
    "CommandFailed",
    "Descriptor",
    "FaultProxy",
    "LeakCheck",
    "Leaked",
    "ServerFailed",
    "ServerMissing",
    "SessionRecord",
    "TestServer",
    "leaks",
]
