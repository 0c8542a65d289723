"""The oldest client without a WebSocket of its own: SockJS (ChatKitty protocol notes, section 2.9)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.stage import Stage
from tests.e2e.values import NEWEST, Runtime
from tests.support import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEGACY = [
    Runtime("node", "chatkitty-1.58.2"),
    Runtime("node", "chatkitty-1.53.7"),
    Runtime("node", "chatkitty-1.26.0"),
]


@pytest.fixture(scope="module", params=["true", "false"], ids=["websocket", "xhr-streaming"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that offers the WebSocket transport, or does not, so that clients stream over HTTP."""
    process = ServerProcess(tmp_path_factory.mktemp("server"), settings={"sockjs_websocket": str(request.param)})
    process.start()
    yield process
    process.stop()


@pytest.mark.parametrize("runtime", LEGACY, ids=str)
async def test_session_over_sockjs(stage: Stage, runtime: Runtime) -> None:
    name, visitor_name = stage.name("legacy"), stage.name("visitor")
    client, visitor = await stage.client(runtime, websocket=False), await stage.client(NEWEST)
    user = await client.sign_in(name)
    assert (user.name, user.is_guest, user.presence.online) == (name, True, True)

    await visitor.sign_in(visitor_name)
    await client.until(lambda: client.presence(visitor_name) == [(visitor_name, True)], "the visitor")
    await visitor.end()
    await client.until(lambda: client.presence(visitor_name)[1:] == [(visitor_name, False)], "the visitor to go")

    outcome = await client.update(displayName="Zoë 🙂 " + "\u200c\ufff0" + "x" * 200)
    assert outcome.user is not None
    assert outcome.user.display_name == "Zoë 🙂 " + "\u200c\ufff0" + "x" * 200
    invalid = await client.update(displayName=5)
    assert invalid.error is not None
    assert invalid.error.code == "ClientError"
    assert (await client.contact(visitor_name)).name == visitor_name

    await client.end()
    session = await stage.session(name)
    assert (session.state, session.end_reason) == ("ended", "client")
    assert client.sockets() == [], "no WebSocket of the SDK's own"
