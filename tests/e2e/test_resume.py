"""Losing the network and coming back (ChatKitty protocol notes, section 2.7).

The vendor's server forgets what happens meanwhile; here it is delivered, in order and once.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.e2e.stage import Stage
from tests.e2e.travel import records, travellers
from tests.e2e.values import NEWEST, Heard

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_missed_events_are_delivered_after_a_loss(stage: Stage) -> None:
    friend, visitor = await stage.client(NEWEST), await stage.client(NEWEST)
    friend_name, visitor_name = stage.name("friend"), stage.name("visitor")
    names = (friend_name, visitor_name)
    await friend.sign_in(friend_name)
    group = await travellers(stage)
    before = await records(stage, group)

    for traveller in group:
        traveller.proxy.go_away()
    await friend.update(displayName="One")
    await visitor.sign_in(visitor_name)
    await friend.update(displayName="Two", properties={"moved": True})
    await visitor.end()
    await friend.update(displayName="Three")
    await visitor.sign_in(visitor_name)
    missed: Heard = [
        ("contact", friend_name, "One"),
        ("presence", visitor_name, True),
        ("contact", friend_name, "Two"),
        ("presence", visitor_name, False),
        ("contact", friend_name, "Three"),
        ("presence", visitor_name, True),
    ]
    await asyncio.gather(*(traveller.client.lost() for traveller in group))
    assert all(t.client.heard(*names, since=t.mark) == [] for t in group)

    for traveller in group:
        await traveller.proxy.accept()
    await asyncio.gather(*(traveller.hears(missed, *names) for traveller in group))

    await friend.update(displayName="Four")
    await visitor.end()
    later: Heard = [("contact", friend_name, "Four"), ("presence", visitor_name, False)]
    await asyncio.gather(*(traveller.hears(missed + later, *names) for traveller in group))
    for old, new, traveller in zip(before, await records(stage, group), group, strict=True):
        assert (new.id, new.state, new.resumes) == (old.id, "active", 1)
        assert traveller.client.connectivity(traveller.mark) == ["offline", "online"]
        assert (await traveller.client.me()).name == traveller.name


async def test_a_change_made_offline_arrives_after_the_loss(stage: Stage) -> None:
    """The SDKs keep what is asked of them while there is no connection."""
    friend = await stage.client(NEWEST)
    await friend.sign_in(stage.name("friend"))
    group = await travellers(stage)
    for traveller in group:
        traveller.proxy.cut()
    await asyncio.gather(*(traveller.client.lost() for traveller in group))

    outcomes = await asyncio.gather(*(t.client.update(displayName=f"Far away {t.name}") for t in group))
    for traveller, outcome in zip(group, outcomes, strict=True):
        assert outcome.user is not None
        assert outcome.user.display_name == f"Far away {traveller.name}"
        told: Heard = [("presence", traveller.name, True), ("contact", traveller.name, f"Far away {traveller.name}")]
        await friend.hears(told, traveller.name)
    assert all(record.resumes == 1 for record in await records(stage, group))
