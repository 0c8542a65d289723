"""Words between nodes that are heard late, or in another order than they were said: the store knows better."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from tests.unit.services.support import start, until

from offhook.codes import EndReason
from offhook.core import Core
from offhook.domain.accounts import Application
from offhook.domain.events import user_topic
from offhook.domain.sessions import SessionState
from offhook.ports import EVERY_NODE, BlocksChanged, Transaction

T = TypeVar("T")


async def test_a_session_that_began_as_its_application_was_closed_elsewhere_is_ended(
    core: Core, application: Application
) -> None:
    other, _ = await core.applications.create("other")
    stay, witness = await start(core, "jane"), await start(core, "john", other)
    # Whoever closed it ended the sessions that there were by then; this one was stored a moment later.
    await core.store.transact(lambda tx: tx.applications.save(replace(application, enabled=False)))
    await core.reconciler.resync()
    await until(lambda: bool(stay.outlet.ends))
    assert stay.outlet.ends == [(EndReason.APPLICATION_CLOSED, "")]
    assert (await core.sessions.show(stay.id)).session.state is SessionState.ENDED
    assert (await core.sessions.show(witness.id)).session.state is SessionState.ACTIVE
    await core.reconciler.reconcile()
    assert core.metrics.session_ends.value("application_closed") == 1


async def test_of_two_words_about_blocks_the_later_one_counts(core: Core, application: Application) -> None:
    jane, john = await start(core, "jane"), await start(core, "john")
    one, other = jane.live.user_id, john.live.user_id
    await core.users.block(application, one, other)
    # What another node said before is heard only now.
    await core.broker.send(EVERY_NODE, BlocksChanged(((one, frozenset()), (other, frozenset()))))
    await until(lambda: jane.live.blocked == {other} and john.live.blocked == {one})


async def test_what_is_seen_while_a_session_counts_as_suspended_is_saved_as_it_is_revived(core: Core) -> None:
    stay = await start(core, "jane")
    await core.store.transact(lambda tx: core.reaper._bury(core.sessions.node, tx))
    topic = user_topic(stay.live.user_id)
    stay.live.acked[topic] = 7
    core.reaper.acked(stay.live)
    await core.reaper.save_positions()
    assert (await core.sessions.show(stay.id)).session.positions[topic] == 0
    await core.reconciler.reconcile()
    session = (await core.sessions.show(stay.id)).session
    assert (session.state, session.positions[topic]) == (SessionState.ACTIVE, 7)


async def test_an_older_look_at_blocks_that_ends_last_changes_nothing(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    jane, john = await start(core, "jane"), await start(core, "john")
    query, held = core.store.query, [asyncio.Event(), asyncio.Event()]
    looks, looked = iter(held), asyncio.Event()

    async def late(work: Callable[[Transaction], T]) -> T:
        found = await query(work)
        looked.set()
        await next(looks).wait()
        return found

    def word(*others: int) -> BlocksChanged:
        return BlocksChanged(((jane.live.user_id, frozenset(others)),))

    await core.store.transact(lambda tx: tx.users.block(jane.live.user_id, john.live.user_id, core.clock.now()))
    monkeypatch.setattr(core.store, "query", late)
    core.reconciler.blocks_changed(word(john.live.user_id))
    older = asyncio.create_task(core.reconciler.confirm_blocks())
    await looked.wait()
    await core.store.transact(lambda tx: tx.users.unblock(jane.live.user_id, john.live.user_id))
    core.reconciler.blocks_changed(word())
    newer = asyncio.create_task(core.reconciler.confirm_blocks())
    held[1].set()
    await newer
    held[0].set()
    await older
    assert jane.live.blocked == frozenset()
