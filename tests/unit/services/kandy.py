"""What the tests of subscriptions share."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from tests.unit.services.support import Outlet

from offhook.core import Core
from offhook.domain.accounts import Application, User
from offhook.domain.sessions import Client, Session
from offhook.domain.subscriptions import CALL, IM, PRESENCE
from offhook.protocols.kandy import hmac_token
from offhook.services.credentials import HmacProof
from offhook.services.hub import LiveSession
from offhook.services.subscriptions import Opened, Wanted

ALICE, BOB = "alice@example.com", "bob@example.com"
CLIENT = Client("kandy", "test/1", "192.0.2.7")
EVERYTHING = (CALL, PRESENCE, IM)

_nonces = count()


@dataclass(eq=False)
class Line:
    """A subscription, and its connection once it has one."""

    opened: Opened
    outlet: Outlet = field(default_factory=Outlet)
    live: LiveSession | None = None

    @property
    def id(self) -> int:
        return self.opened.session.id


async def user_of(core: Core, name: str = ALICE) -> User:
    """A user of the default application."""
    return await core.users.by_name(await core.applications.get("default"), name)


async def subscribe(
    core: Core,
    name: str = ALICE,
    *services: str,
    application: Application | None = None,
    lifetime: float = 3600.0,
    correlator: str | None = None,
    force: bool = False,
    device: str = "",
) -> Line:
    """Makes a subscription by a token of the application's back end."""
    where = application or await core.applications.get("default")
    issued_at = int(core.clock.now().timestamp())
    claims = hmac_token.HmacClaims(name, where.domain, issued_at, f"nonce-of-a-test-{next(_nonces):08}")
    proof = HmacProof(hmac_token.encode(core.hmac_key(where).encode(), claims))
    wanted = Wanted(services or EVERYTHING, lifetime, correlator=correlator, force=force, device=device)
    return Line(await core.subscriptions.create(where, name, [proof], wanted, CLIENT))


async def attach(core: Core, line: Line) -> LiveSession | None:
    """Gives a subscription a connection whose client is ready for events at once."""
    line.outlet = Outlet()
    line.live = await core.sessions.attach(line.id, CLIENT, line.outlet)
    if line.live is not None:
        await core.hub.release(line.live)
    return line.live


async def connected(core: Core, name: str = ALICE, *services: str, **more: object) -> Line:
    """A subscription with a connection."""
    line = await subscribe(core, name, *services, **more)  # type: ignore[arg-type]
    assert await attach(core, line) is not None
    return line


async def session_of(core: Core, line: Line) -> Session:
    """A subscription's session as stored."""
    return (await core.sessions.show(line.id)).session


async def online(core: Core, name: str = ALICE) -> bool:
    """Whether a user is stored as online."""
    return (await user_of(core, name)).online
