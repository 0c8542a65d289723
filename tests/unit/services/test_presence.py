"""Presence against a model: a user is online exactly while a session of theirs is active or within its leave grace.

Two witnesses fold the events they hear into the list of users they fetched once; it must stay what a fresh fetch
gives. One of them goes away and comes back, and catches up on what it missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar, TypeVar

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.contract.systems import ManualClock
from tests.unit.services.support import CLIENT, Outlet, Stay, until

from offhook.codes import CloseReason, EndReason
from offhook.core import Core, open_core
from offhook.domain.accounts import Application, DuplicatePolicy, SessionPolicy, User, UserChanges, UserFilter
from offhook.domain.events import PresenceChanged, UserDeleted, UserUpdated, application_topic
from offhook.domain.values import PageRequest
from offhook.ports import SessionFilter
from offhook.services.applications import ApplicationChanges
from offhook.settings import Settings

T = TypeVar("T")

NAMES = st.sampled_from(["ann", "ben", "cat"])
GRACE, WINDOW, MOST = 10.0, 60.0, 3
ABOUT_USERS = (PresenceChanged, UserUpdated, UserDeleted)


@dataclass
class Modelled:
    """A session as the model has it; it is active while it has no ``leave_at``."""

    name: str
    stay: Stay
    leave_at: datetime | None = None
    resumable_until: datetime | None = None

    def online(self, now: datetime) -> bool:
        return self.leave_at is None or now < self.leave_at


@dataclass
class Witness:
    """A user who fetched the list of users once, and since then only heard events."""

    stay: Stay
    users: dict[int, User]
    taken: int = 0
    away: bool = False
    transitions: list[tuple[str, bool]] = field(default_factory=list)

    def fold(self) -> dict[int, User]:
        """The list with everything heard since."""
        for event in self.stay.outlet.events[self.taken :]:
            assert isinstance(event, ABOUT_USERS)
            if isinstance(event, UserDeleted):
                self.users.pop(event.user.id, None)
            else:
                if isinstance(event, PresenceChanged):
                    self.transitions.append((event.user.name, event.user.online))
                self.users[event.user.id] = event.user
        self.taken = len(self.stay.outlet.heard)
        return self.users


class PresenceModel(RuleBasedStateMachine):
    """Sessions of three users, in one application of its own for each example."""

    core: ClassVar[Core]
    clock: ClassVar[ManualClock]
    runner: ClassVar[asyncio.Runner]
    examples: ClassVar[int] = 0

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        type(self).examples += 1
        policy = SessionPolicy(MOST, DuplicatePolicy.END_OLDEST, GRACE, WINDOW)
        changes = ApplicationChanges(sessions=policy)
        self.application: Application
        self.application, _ = self.run(self.core.applications.create(f"app-{self.examples}", changes=changes))
        self.sessions: list[Modelled] = []
        self.ever: set[str] = set()
        self.swept = True
        self.steady, self.restless = self.witness("steady"), self.witness("restless")
        self.steady.users[self.restless.stay.live.user_id] = self.restless.stay.live.user
        self.steady.taken = len(self.steady.stay.outlet.heard)

    def witness(self, name: str) -> Witness:
        stay = self.run(self.enter(name))
        return Witness(stay, self.run(self.fetch()))

    async def enter(self, name: str) -> Stay:
        outlet = Outlet()
        live = await self.core.sessions.start(self.application, name, {}, CLIENT, outlet)
        await self.core.hub.release(live)
        return Stay(live, outlet)

    async def fetch(self) -> dict[int, User]:
        page = await self.core.users.list(self.application, UserFilter(), PageRequest(size=100))
        return {user.id: user for user in page.items}

    def modelled(self, name: str) -> bool:
        return any(session.online(self.clock.now()) for session in self.sessions if session.name == name)

    # What can happen.

    @rule(name=NAMES)
    def start(self, name: str) -> None:
        mine = [session for session in self.sessions if session.name == name]
        surplus = len(mine) + 1 - MOST
        without = [session for session in mine if session.leave_at is not None]
        replaced = (without + [session for session in mine if session.leave_at is None])[: max(surplus, 0)]
        stay = self.run(self.enter(name))
        for session in replaced:
            self.sessions.remove(session)
        self.sessions.append(Modelled(name, stay))
        self.ever.add(name)

    @rule(data=st.data())
    @precondition(lambda self: any(session.leave_at is None for session in self.sessions))
    def lose(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from([session for session in self.sessions if session.leave_at is None]))
        self.run(self.core.sessions.suspend(session.stay.live, CloseReason.PEER_LOST))
        session.leave_at = self.clock.now() + timedelta(seconds=GRACE)
        session.resumable_until = self.clock.now() + timedelta(seconds=WINDOW)

    @rule(data=st.data())
    @precondition(lambda self: self.sessions)
    def resume(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        back = self.run(self.come_back(session.stay, session.name))
        over = session.resumable_until is not None and self.clock.now() >= session.resumable_until
        assert (back is None) is over
        if back is not None:
            session.stay, session.leave_at, session.resumable_until = back, None, None

    async def come_back(self, stay: Stay, name: str) -> Stay | None:
        outlet = Outlet()
        token = self.core.sessions.token_of(stay.live)
        live = await self.core.sessions.resume(self.application, name, token, CLIENT, outlet)
        if live is None:
            return None
        await self.core.hub.release(live)
        return Stay(live, outlet)

    @rule(data=st.data(), by_client=st.booleans())
    @precondition(lambda self: self.sessions)
    def end(self, data: st.DataObject, by_client: bool) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        if by_client and session.leave_at is None:
            self.run(self.core.sessions.end_live(session.stay.live, EndReason.CLIENT))
        else:
            self.run(self.core.sessions.end(session.stay.id, EndReason.OPERATOR))
        self.sessions.remove(session)

    @rule(seconds=st.sampled_from([0.1, 5.0, 9.9, 10.0, 31.0, 60.0]), sweep=st.booleans())
    def time_passes(self, seconds: float, sweep: bool) -> None:
        self.clock.advance(seconds)
        self.swept = False
        if sweep:
            self.sweep()

    @rule()
    def sweep(self) -> None:
        self.run(self.core.reaper.sweep())
        now = self.clock.now()
        self.sessions = [s for s in self.sessions if s.resumable_until is None or now < s.resumable_until]
        self.swept = True

    @rule(name=NAMES, seconds=st.sampled_from([9.9, 10.0, 60.0]))
    @precondition(lambda self: any(session.leave_at is None for session in self.sessions))
    def the_network_goes(self, name: str, seconds: float) -> None:
        """All connections of a user break, and nobody comes back for a while."""
        now = self.clock.now()
        for session in self.sessions:
            if session.name == name and session.leave_at is None:
                self.run(self.core.sessions.suspend(session.stay.live, CloseReason.PEER_LOST))
                session.leave_at = now + timedelta(seconds=GRACE)
                session.resumable_until = now + timedelta(seconds=WINDOW)
        self.time_passes(seconds, True)

    @rule(name=NAMES, text=st.sampled_from(["X", "Y", "Z"]))
    def change(self, name: str, text: str) -> None:
        if name in self.ever:
            user = self.run(self.core.users.by_name(self.application, name))
            self.run(self.core.users.change(self.application, user.id, UserChanges(display_name=text, status=text)))

    @rule(data=st.data())
    def the_restless_witness_goes_or_comes(self, data: st.DataObject) -> None:
        witness = self.restless
        if witness.away:
            back = self.run(self.come_back(witness.stay, "restless"))
            if back is None:
                # Away for too long: it has to fetch everything anew.
                back = self.run(self.enter("restless"))
                witness.users = self.run(self.fetch())
            witness.stay, witness.taken, witness.away = back, 0, False
        else:
            witness.fold()
            heard = [p for p in witness.stay.outlet.heard if p.topic == application_topic(self.application.id)]
            if heard:
                seen = data.draw(st.sampled_from(heard))
                acked = witness.stay.live.acked
                acked[seen.topic] = max(acked.get(seen.topic, 0), seen.position.offset)
            self.run(self.core.sessions.suspend(witness.stay.live, CloseReason.PEER_LOST))
            witness.away = True

    # What must be true.

    @invariant()
    def stored_presence_is_the_models(self) -> None:
        for user in self.run(self.fetch()).values():
            if user.name in ("steady", "restless"):
                continue
            online = self.modelled(user.name)
            # Only time can make the stored flag late, and only until the next sweep.
            assert user.online is online or (user.online and not self.swept)

    @invariant()
    def state_and_events_are_the_fresh_state(self) -> None:
        fresh = self.run(self.fetch())
        assert self.steady.fold() == fresh
        if not self.restless.away:
            assert self.restless.fold() == fresh

    @invariant()
    def nobody_is_told_the_same_twice(self) -> None:
        last: dict[str, bool] = {}
        for event in self.steady.stay.outlet.events:
            if isinstance(event, PresenceChanged):
                before = last.get(event.user.name)
                # A status that changed is told as presence, too; then it is the status that differs.
                assert before is not event.user.online or event.user.status is not None
                last[event.user.name] = event.user.online

    def teardown(self) -> None:
        if hasattr(self, "application"):
            where = SessionFilter(application_id=self.application.id)
            self.run(self.core.sessions.end_all(where, EndReason.OPERATOR))
            self.run(until(lambda: not len(self.core.hub)))


def test_presence_follows_the_sessions(tmp_path: Path, clock: ManualClock) -> None:
    with asyncio.Runner() as runner:

        async def opened() -> tuple[Core, asyncio.Event, asyncio.Task[None]]:
            ready: asyncio.Future[Core] = asyncio.get_running_loop().create_future()
            done = asyncio.Event()

            async def hold() -> None:
                async with open_core(Settings(data_dir=tmp_path, durability="normal")) as core:
                    ready.set_result(core)
                    await done.wait()

            task = asyncio.create_task(hold())
            return await ready, done, task

        core, done, task = runner.run(opened())
        PresenceModel.core, PresenceModel.clock, PresenceModel.runner = core, clock, runner
        try:
            run_state_machine_as_test(
                PresenceModel,
                settings=hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None),
            )
        finally:
            done.set()
            runner.run(asyncio.wait_for(task, 10))
