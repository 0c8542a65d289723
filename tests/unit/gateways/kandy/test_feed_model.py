"""Whatever is sent, watched, cut and lost: what a page holds in the end is what there is.

Two pages of one user, on networks that lose what is under way. The window, its pages and the replay are made small, so
that all of them are full at times.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck
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
from tests.unit.gateways.kandy.browser import Device, Page, hurry, subscribed
from tests.unit.gateways.kandy.conftest import gateway_of

from offhook.codes import CloseReason, EndReason
from offhook.core import Core, open_core
from offhook.domain.accounts import User
from offhook.domain.presence import Activity, Presence, choosing
from offhook.domain.subscriptions import CALL, IM, PRESENCE
from offhook.gateways.background import settle
from offhook.gateways.kandy import feed as feed_module
from offhook.gateways.kandy import window as window_module
from offhook.gateways.kandy.gateway import Gateway
from offhook.ports import SessionFilter
from offhook.server.timers import TimerWheel
from offhook.services import hub as hub_module
from offhook.services.subscriptions import Watching
from offhook.settings import Settings

T = TypeVar("T")

ANN, BEN, CAT = "ann@example.com", "ben@example.com", "cat@example.com"
LIMIT, PAGE, PROBE_EVERY, REPLAY = 12, 4, 5, 10
NAMES = [BEN, f"sip:{BEN}", CAT, f"tel:{CAT};x=1", ANN, "nobody@example.com"]
PATIENCE = 10.0

devices = st.integers(0, 1)
names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
people = st.sampled_from([BEN, CAT])
activities = st.lists(st.sampled_from([Activity.AWAY, Activity.BUSY, Activity.LUNCH]), min_size=1, max_size=9)


class Model:
    """A page, and what must be on it.

    Attributes:
        device: the page's subscription.
        im: whether it has asked for messages.
        due: texts that it must get, whatever happens.
        watched: under which names it watches whom.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.im = True
        self.due: list[str] = []
        self.watched: set[str] = set()

    @property
    def connected(self) -> bool:
        return bool(self.device.wires) and self.device.wire.open


class Failures:
    """A log that keeps what should never be in it."""

    def __init__(self) -> None:
        self.all: list[object] = []

    def exception(self, event: str, **_: object) -> None:
        self.all.append((event, sys.exc_info()[1]))


class FeedModel(RuleBasedStateMachine):
    """Two devices of ann, in an application of its own for each example."""

    core: ClassVar[Core]
    gateway: ClassVar[Gateway]
    runner: ClassVar[asyncio.Runner]
    failures: ClassVar[Failures]
    examples: ClassVar[int] = 0
    texts: ClassVar[count[int]] = count()

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        type(self).examples += 1
        self.sent: list[str] = []
        self.closed: set[str] = set()  # what pages got that were closed for good
        self.people: dict[str, User] = {}
        self.others: dict[str, Device] = {}
        self.application, _ = self.run(self.core.applications.create(f"app-{self.examples}"))
        for name in (ANN, BEN, CAT):
            self.people[name] = self.run(self.core.users.create(self.application, name))
        self.models = [Model(self.run(self.subscribe())) for _ in range(2)]

    async def subscribe(self) -> Device:
        device = await subscribed(self.gateway, self.core, ANN, application=self.application)
        device.page = Page(LIMIT)
        return device

    async def turns(self, number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    # What can happen.

    @rule(sender=people, number=st.integers(1, 15))
    def send(self, sender: str, number: int) -> None:
        for _ in range(number):
            text = f"text-{next(self.texts)}"
            self.run(self.core.messages.send(self.people[sender], ANN, text))
            self.sent.append(text)
            for model in self.models:
                if model.im:
                    model.due.append(text)

    @rule(name=people, chosen=activities)
    def choose(self, name: str, chosen: list[Activity]) -> None:
        user = self.people[name]
        for activity in chosen:
            changes = choosing(Presence(True, activity))
            self.run(self.core.users.change(self.application, user.id, changes))

    @rule(name=people)
    def come_or_go(self, name: str) -> None:
        device = self.others.pop(name, None)
        if device is not None:
            self.run(self.core.sessions.end(device.id, EndReason.OPERATOR))
            self.run(self.turning(device.wire.cut, 1))
            return
        device = self.run(subscribed(self.gateway, self.core, name, PRESENCE, application=self.application))
        self.others[name] = device

        async def online(device: Device) -> None:
            device.open()
            async with asyncio.timeout(PATIENCE):
                while self.core.hub.get(device.id) is None:
                    await asyncio.sleep(0.001)

        self.run(online(device))

    @rule(which=devices, wanted=names, action=st.sampled_from(Watching))
    def watch(self, which: int, wanted: list[str], action: Watching) -> None:
        model = self.models[which]
        self.run(model.device.watch(*wanted, action=action))
        if action is Watching.WATCH:
            model.watched |= set(wanted)
        elif action is Watching.STOP:
            model.watched -= set(wanted)

    @rule(which=devices)
    def renew(self, which: int) -> None:
        model = self.models[which]
        model.im = not model.im
        self.run(model.device.renew(*((CALL, PRESENCE, IM) if model.im else (CALL, PRESENCE))))
        if not model.im:
            # What it has not got by now, it will get only if nobody else does.
            model.due.clear()

    @rule(which=devices, prompt=st.booleans(), turns=st.integers(0, 30))
    def open(self, which: int, prompt: bool, turns: int) -> None:
        """Opens a socket, be there one or not."""
        device = self.models[which].device
        if len([wire for wire in device.wires if wire.open]) < 3:
            self.run(self.turning(lambda: device.open(prompt=prompt), turns))

    @rule(which=devices, turns=st.integers(0, 30))
    @precondition(lambda self: any(model.connected for model in self.models))
    def cut(self, which: int, turns: int) -> None:
        model = self.models[which]
        if model.connected:
            self.run(self.turning(lambda: model.device.wire.cut(CloseReason.PEER_LOST), turns))

    @rule(which=devices, sender=people, number=st.integers(1, 12), most=st.integers(0, 12), pongs=st.booleans())
    def cut_short(self, which: int, sender: str, number: int, most: int, pongs: bool) -> None:
        """A connection breaks while much is under way: a part arrives, of which the server may learn or not."""
        device = self.models[which].device
        if not self.models[which].connected:
            self.run(self.turning(device.open, 0))
            self.run(self.until_live(device))
        wire = device.wire
        wire.prompt, wire.pongs_held = False, not pongs
        self.send(sender, number)
        self.run(self.turning(lambda: wire.arrive(most), 20))
        self.run(self.turning(wire.cut, 5))

    async def until_live(self, device: Device) -> None:
        async with asyncio.timeout(PATIENCE):
            while (live := self.core.hub.get(device.id)) is None or live.held:
                await asyncio.sleep(0.001)

    @rule(which=devices, most=st.integers(1, 20), pongs=st.booleans())
    def arrive(self, which: int, most: int, pongs: bool) -> None:
        for wire in self.models[which].device.wires:
            wire.pongs_held = not pongs
            self.run(self.turning(lambda wire=wire: wire.arrive(most), 5))

    @rule(which=devices, most=st.integers(1, 3))
    def answer(self, which: int, most: int) -> None:
        for wire in self.models[which].device.wires:
            self.run(self.turning(lambda wire=wire: wire.answer(most), 5))

    @rule(turns=st.integers(1, 100))
    def time_passes(self, turns: int) -> None:
        self.run(self.turns(turns))

    async def turning(self, work: object, turns: int) -> None:
        assert callable(work)
        work()
        await self.turns(turns)

    @rule(which=devices)
    def start_over(self, which: int) -> None:
        """The page is closed for good, and another one opened."""
        model = self.models[which]
        self.run(self.core.subscriptions.end(self.people[ANN], model.device.id))
        self.closed |= set(model.device.page.texts)
        for wire in model.device.wires:
            self.run(self.turning(wire.cut, 1))
        self.models[which] = Model(self.run(self.subscribe()))

    @rule()
    def calm(self) -> None:
        """The network is good for a while."""
        self.run(self.calm_down())

    async def calm_down(self) -> None:
        for model in self.models:
            for wire in model.device.wires:
                wire.prompt, wire.pongs_held = True, False
                wire.arrive()
            if not model.connected:
                model.device.open()
        async with asyncio.timeout(PATIENCE) as patience:
            while True:
                wrong = [problem for model in self.models for problem in await self.wrong(model)]
                if not wrong:
                    return
                when = patience.when()
                assert when is not None
                assert asyncio.get_running_loop().time() < when - 1.0, wrong
                await asyncio.sleep(0.005)

    async def wrong(self, model: Model) -> list[str]:
        """What is not yet as it must be."""
        problems: list[str] = []
        device = model.device
        live = self.core.hub.get(device.id)
        if live is None or live.held or not device.wire.open:
            return ["it is not live"]
        if device.wire.unproved:
            problems.append(f"{device.wire.unproved} unproved")
        missing = [text for text in model.due if text not in device.page.texts]
        if missing:
            problems.append(f"texts are missing: {missing} of {model.due}, there are {device.page.texts}")
        truth = await self.core.subscriptions.presence(self.application.id, self.people[ANN].id, list(model.watched))
        for name, presence in truth.items():
            expected = ("open" if presence.open else "closed", presence.activity.value, presence.note)
            if device.page.shown.get(name) != expected:
                problems.append(f"{name} is {expected}, but shown is {device.page.shown.get(name)}")
        if any(model.im for model in self.models):
            seen = {text for model in self.models for text in model.device.page.texts} | self.closed
            lost = [text for text in self.sent if text not in seen]
            if lost:
                problems.append(f"nobody got {lost}")
        return problems

    # What must always be true.

    @invariant()
    def texts_come_once_and_in_order(self) -> None:
        for model in self.models:
            page = model.device.page
            order = [self.sent.index(text) for text in page.texts]
            if page.told:
                # What was unproved on one socket comes in another order, and among new things, on the next: presence
                # and messages are two topics. If that one breaks, too, a page may have forgotten what it got first.
                order = list(dict.fromkeys(order))
            assert order == sorted(set(order)), order

    @invariant()
    def nothing_fails(self) -> None:
        assert self.failures.all == []

    @invariant()
    def nobody_is_sent_away_and_no_window_overflows(self) -> None:
        for model in self.models:
            assert model.device.page.gone == 0
            for wire in model.device.wires:
                assert wire.most_unproved <= LIMIT

    def teardown(self) -> None:
        if not hasattr(self, "models"):
            return
        try:
            self.run(self.calm_down())
        finally:
            self.run(self.leave())

    async def leave(self) -> None:
        await self.core.sessions.end_all(SessionFilter(application_id=self.application.id), EndReason.OPERATOR)
        for device in [*(model.device for model in self.models), *self.others.values()]:
            for wire in device.wires:
                wire.cut()
        await settle()
        assert not len(self.core.hub) and not self.gateway.sockets
        assert not self.core.hub._topics


def test_pages_hold_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    for module, values in (
        (window_module, {"LIMIT": LIMIT, "PROBE_EVERY": PROBE_EVERY}),
        (feed_module, {"HISTORY_PAGE": PAGE}),
        (hub_module, {"HISTORY_PAGE": PAGE, "MAX_REPLAY": REPLAY, "MAX_HELD": 6}),
    ):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    FeedModel.failures = Failures()
    monkeypatch.setattr(feed_module, "log", FeedModel.failures)
    with asyncio.Runner() as runner:
        done = asyncio.Event()

        async def opened() -> tuple[Core, Gateway, asyncio.Task[None]]:
            ready: asyncio.Future[tuple[Core, Gateway]] = asyncio.get_running_loop().create_future()

            async def hold() -> None:
                async with open_core(Settings(data_dir=tmp_path, durability="normal")) as core:
                    timers = TimerWheel(tick=0.005)
                    timers.start(asyncio.get_running_loop())
                    await core.reaper.start()
                    ready.set_result((core, gateway_of(core, timers)))
                    await done.wait()
                    timers.stop()
                    await core.reaper.stop()

            task = asyncio.create_task(hold())
            return *await ready, task

        core, gateway, task = runner.run(opened())
        FeedModel.core, FeedModel.gateway, FeedModel.runner = core, gateway, runner
        try:
            run_state_machine_as_test(
                FeedModel,
                settings=hypothesis_settings(
                    max_examples=40,
                    stateful_step_count=30,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            done.set()
            runner.run(asyncio.wait_for(task, 10))
