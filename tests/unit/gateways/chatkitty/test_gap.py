"""Events that never reached this node: its clients come back and start over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.unit.gateways.chatkitty.conftest import Connect

from offhook.codes import CLOSINGS
from offhook.core import Core
from offhook.domain.accounts import Application, UserChanges
from offhook.domain.events import Origin, Position, Topic, UserUpdated, application_topic, user_topic
from offhook.domain.sessions import SessionState
from offhook.domain.values import PageRequest
from offhook.gateways.background import settle
from offhook.ports import Handlers, HistoryLost, Publication, SessionFilter


async def test_a_gap_sends_its_clients_away_and_they_start_over(
    connect: Connect, core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    john = await core.users.create(application, "john")
    jane = await connect().bootstrap("jane")
    topic = application_topic(application.id)
    with monkeypatch.context() as patch:
        # As if these had been committed elsewhere, and pruned before word of them came.
        patch.setattr(core.broker, "_handlers", Handlers())
        for number in range(260):
            await core.users.change(application, john.id, UserChanges(display_name=f"{number}"))
    core.hub.gap(topic)
    reason = await jane.closing()
    assert CLOSINGS[reason].retry
    # Its socket says that it is closed in the loop's next turn.
    await asyncio.sleep(0)
    await settle()
    (session,) = (await core.sessions.list(SessionFilter(user_name="jane"), PageRequest())).items
    assert session.state is SessionState.SUSPENDED
    again = connect()
    answer = await again.connect("jane", **{"StompX-Auth-Session-ID": jane.session})
    assert answer.command == "CONNECTED" and answer.headers["recovered"] == "lost"


async def test_a_client_that_was_promised_all_is_told_if_some_of_it_goes_meanwhile(
    connect: Connect, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    jane = await connect().bootstrap("jane")
    await jane.lose()
    back = connect()
    answer = await back.connect("jane", **{"StompX-Auth-Session-ID": jane.session})
    assert answer.headers["recovered"] == "complete"

    history, asked = core.broker.history, list[Topic]()

    async def pruned(topic: Topic, after: Position, limit: int) -> Sequence[Publication]:
        asked.append(topic)
        if len(asked) == 1:
            raise HistoryLost("pruned")
        return await history(topic, after, limit)

    monkeypatch.setattr(core.broker, "history", pruned)
    (live,) = core.hub
    await core.hub.release(live)
    assert CLOSINGS[await back.closing()].retry


async def test_a_gap_of_a_topic_that_nobody_hears_matters_to_nobody(connect: Connect, core: Core) -> None:
    jane = await connect().bootstrap("jane")
    core.hub.gap(user_topic(999))
    await settle()
    assert jane.socket.closed is None


async def test_a_late_origin_answers_the_request_that_caused_the_event(
    connect: Connect, core: Core, application: Application
) -> None:
    jane, other = await connect().bootstrap("jane"), await connect().bootstrap("jane")
    one, _ = core.hub
    jane.skip()
    other.skip()
    place = await core.broker.position(user_topic(one.user_id))
    event = UserUpdated(one.user)
    core.hub.late(Publication(user_topic(one.user_id), place, event, Origin(one.id, "r-77")))
    # Its client knows the answer by the name it gave its request.
    assert "r-77" in (await jane.frame("MESSAGE")).headers.values()
    assert other.nothing_more()
    # What came after it follows once more, and so is what stays.
    since = Publication(user_topic(one.user_id), replace(place, offset=place.offset + 1), event)
    core.hub.late(Publication(user_topic(one.user_id), place, event, Origin(one.id, "r-78")), [since])
    assert "r-78" in (await jane.frame("MESSAGE")).headers.values()
    assert "r-78" not in (await jane.frame("MESSAGE")).headers.values()
    core.hub.late(Publication(user_topic(one.user_id), place, event, Origin(999, "r-77")), [since])
    assert jane.nothing_more() and other.nothing_more()
