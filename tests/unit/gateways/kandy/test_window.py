"""The window against a model: a list of what was sent and of the pings in between."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from offhook.domain.events import Topic
from offhook.domain.subscriptions import Owed
from offhook.gateways.kandy.window import LIMIT, PROBE_EVERY, Window

OWN, EVERYBODY = Topic("user.1"), Topic("application.1")


@dataclass
class Sent:
    """What was sent up to one ping.

    Attributes:
        payload: of the ping.
        count: notifications since the ping before.
        places: topic → offset, as of the ping.
        message: as of the ping.
        owed: among the notifications.
    """

    payload: bytes
    count: int
    places: dict[Topic, int]
    message: int
    owed: list[Owed] = field(default_factory=list)


class WindowModel(RuleBasedStateMachine):
    """A sender that asks for room, and a network on which pongs come late, twice, made up or never."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window()
        self.waiting: list[Sent] = []
        self.past: list[bytes] = []
        self.since = 0
        self.owed: list[Owed] = []
        self.told = 0
        self.proved: list[tuple[int, int]] = []  # numbers of marks, and how many notifications they proved
        self.saved = 0
        self.asked = 0

    @rule(number=st.integers(1, 60), topic=st.sampled_from([OWN, EVERYBODY]), owed=st.booleans())
    def send(self, number: int, topic: Topic, owed: bool) -> None:
        for _ in range(number):
            if not self.window.room(1):
                break
            self.told += 1
            self.window.sent[topic] = self.told
            if topic == OWN:
                self.window.message = self.told
            self.since += 1
            assert self.window.add() is (self.since >= PROBE_EVERY)
            if owed:
                self.asked += 1
                self.window.add_owed(Owed(f"user-{self.asked}", self.asked))
                self.owed.append(Owed(f"user-{self.asked}", self.asked))

    @rule()
    def probe(self) -> None:
        payload = self.window.probe()
        assert (payload is None) is (self.since == 0 and not self.owed)
        if payload is not None:
            assert 0 < len(payload) <= 125 and payload not in self.past
            assert payload not in [sent.payload for sent in self.waiting]
            places = dict(self.window.sent)
            self.waiting.append(Sent(payload, self.since, places, self.window.message, self.owed))
            self.since, self.owed = 0, []

    @rule(data=st.data())
    def pong(self, data: st.DataObject) -> None:
        """Of any ping that is waited for: those before it may have been lost."""
        if not self.waiting:
            return
        index = data.draw(st.integers(0, len(self.waiting) - 1))
        sent, proved = self.waiting[index], self.waiting[: index + 1]
        mark = self.window.proved(sent.payload)
        assert mark is not None
        assert (mark.sent, mark.message) == (sent.places, sent.message)
        assert list(mark.owed) == [owed for one in proved for owed in one.owed]
        self.proved.append((mark.number, sum(one.count for one in proved)))
        self.past += [one.payload for one in proved]
        del self.waiting[: index + 1]

    @rule(data=st.data())
    def old_pong(self, data: st.DataObject) -> None:
        if self.past:
            assert self.window.proved(data.draw(st.sampled_from(self.past))) is None

    @rule(payload=st.one_of(st.binary(max_size=125), st.integers(0, 2**64 - 1).map(lambda number: number.to_bytes(8))))
    def foreign_pong(self, payload: bytes) -> None:
        if payload not in [sent.payload for sent in self.waiting]:
            assert self.window.proved(payload) is None

    @rule(data=st.data(), twice=st.booleans())
    def save(self, data: st.DataObject, twice: bool) -> None:
        """What was proved up to a mark is stored; that may be told late, and again."""
        if not self.proved:
            return
        number, _ = data.draw(st.sampled_from(self.proved))
        for _ in range(1 + twice):
            self.window.saved(number)
        self.saved += sum(count for mark, count in self.proved if mark <= number)
        self.proved = [(mark, count) for mark, count in self.proved if mark > number]

    @rule()
    def save_nothing(self) -> None:
        self.window.saved(0)

    @invariant()
    def what_may_have_to_be_sent_again_is_counted_and_never_too_much(self) -> None:
        open_ = self.told - self.saved
        assert self.window.open == open_ <= LIMIT
        assert self.window.unproved is (self.since + sum(sent.count for sent in self.waiting) > 0 or bool(self.waiting))
        for count in (1, 2, 50, LIMIT):
            assert self.window.room(count) is (open_ + count <= LIMIT)

    @invariant()
    def what_is_owed_is_under_way_until_it_is_proved(self) -> None:
        expected = {owed for sent in self.waiting for owed in sent.owed} | set(self.owed)
        assert self.window.owed_under_way == expected


TestWindow = WindowModel.TestCase
TestWindow.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_what_is_sent_after_a_ping_is_not_proved_by_its_pong() -> None:
    window = Window()
    window.sent[OWN] = 1
    window.add()
    first = window.probe()
    window.sent[OWN] = 2
    window.add()
    assert first is not None
    mark = window.proved(first)
    assert mark is not None and mark.sent == {OWN: 1} and window.unproved and window.open == 2
    assert window.proved(first) is None
    window.saved(mark.number)
    assert window.open == 1
