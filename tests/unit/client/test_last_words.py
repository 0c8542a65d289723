"""What a server says before it closes a connection is heard, although it takes nothing more."""

from __future__ import annotations

import asyncio
import json

from tests.served import until
from tests.unit.client.chatkitty.people import kitty_at
from tests.unit.client.chatkitty.test_other_servers import Scripted

from offhook.chatkitty import AccessDeniedError, SessionEnded, UserPresenceChanged
from offhook.protocols import stomp

SUBSCRIPTIONS = 5
"""To the error queue, to who the user is, and to three topics."""


async def test_chatkitty_is_told_of_its_end_after_an_event_that_cannot_be_acknowledged() -> None:
    server = Scripted()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        assert (await kitty.start_session("jane")).succeeded
        (socket,) = server.sockets
        error = {"error": "AccessDeniedError", "message": "Enough.", "timestamp": "2021-11-21T15:17:52.868Z"}
        body = json.dumps(error).encode()
        await until(lambda: len(server.said("SUBSCRIBE")) == SUBSCRIPTIONS)
        # All of it is on its way before the client can read the first of it.
        await server.tell("last")
        await socket.send(stomp.encode("ERROR", {"message": "Enough."}, body).decode())
        closing = asyncio.create_task(socket.close(4500))
        (ended,) = await ears.hear(SessionEnded)
        await closing
        assert isinstance(ended.error, AccessDeniedError)
        assert ended.error.message == "Enough."
        assert len(ears.of(UserPresenceChanged)) == 1
        assert len(server.sockets) == 1
