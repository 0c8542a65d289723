"""What was committed is handed out in the order of its offsets, whatever order the answers come in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from tests.contract.systems import a_user

from offhook.domain.events import Position, Topic, UserUpdated
from offhook.ports import Publication
from offhook.storage.postgres.deliveries import Deliveries, Turn

TOPICS = [Topic("application.1"), Topic("user.1"), Topic("user.2")]
EVENT = UserUpdated(a_user(1, id=1))


@given(
    st.lists(st.tuples(st.sets(st.sampled_from(TOPICS), min_size=1), st.booleans()), max_size=12).flatmap(
        lambda units: st.tuples(st.just(units), st.permutations(range(len(units))))
    )
)
def test_each_topics_events_are_handed_out_in_order(
    case: tuple[list[tuple[set[Topic], bool]], Sequence[int]],
) -> None:
    units, answers = case

    async def run() -> None:
        told: list[Publication] = []
        deliveries = Deliveries(told.extend)
        heads = dict.fromkeys(TOPICS, 0)
        turns: list[tuple[Turn, list[Publication]]] = []
        for topics, committed in units:
            published = []
            for topic in sorted(topics) if committed else ():
                heads[topic] += 1
                published.append(Publication(topic, Position("epoch", heads[topic]), EVENT))
            turns.append((deliveries.enter(frozenset(topics)), published))
        waiting = {}
        for number in answers:
            turn, published = turns[number]
            waiting[number] = asyncio.create_task(deliveries.settle(turn, published))
            await asyncio.sleep(0)
            # Whoever goes on was told of first.
            for done, task in waiting.items():
                assert not task.done() or all(publication in told for publication in turns[done][1])
        await asyncio.gather(*waiting.values())
        for topic, head in heads.items():
            assert [p.position.offset for p in told if p.topic == topic] == list(range(1, head + 1))

    asyncio.run(run())


async def test_a_handler_that_fails_keeps_nothing_from_anyone() -> None:
    def fail(_: Sequence[Publication]) -> None:
        raise ValueError("no")

    deliveries = Deliveries(fail)
    for offset in (1, 2):
        turn = deliveries.enter(frozenset(TOPICS[:1]))
        await deliveries.settle(turn, [Publication(TOPICS[0], Position("epoch", offset), EVENT)])
