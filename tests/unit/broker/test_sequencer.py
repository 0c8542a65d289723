"""Whatever happens on the way, each event is handed out once, in order; and nothing waits for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.broker.shared import SharedJournal, an_event

from offhook.broker.sequencer import MAX_ASIDE, Line
from offhook.domain.events import Origin, Topic
from offhook.ports import Publication

TOPIC = Topic("application.1")
TOPICS = [TOPIC, Topic("user.1")]


class Node:
    """A node's lines, and all that they said to hand out."""

    def __init__(self, journal: SharedJournal) -> None:
        self.journal = journal
        self.lines = {topic: Line(topic, 4) for topic in TOPICS}
        self.heard: dict[Topic, list[Publication]] = {topic: [] for topic in TOPICS}
        self.began: dict[Topic, int] = {}
        self.under_way: list[Publication] = []

    def hand_out(self, topic: Topic, out: Sequence[Publication]) -> None:
        self.heard[topic] += out
        line = self.lines[topic]
        if line.delivered is not None and topic not in self.began:
            self.began[topic] = line.delivered - len(out)

    def take(self, publication: Publication) -> None:
        self.hand_out(publication.topic, self.lines[publication.topic].take(publication))

    def look(self, topic: Topic) -> None:
        self.hand_out(topic, self.lines[topic].head(len(self.journal.events.get(topic, []))))

    def read(self, topic: Topic, after: int, limit: int, asked: int) -> bool:
        told = self.lines[topic].page(self.journal.page(topic, after, limit), self.journal.epoch, asked)
        self.hand_out(topic, told.out)
        return told.lost


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_each_event_once_and_in_order_whatever_comes_in_between(data: st.DataObject) -> None:
    journal = SharedJournal()
    nodes = [Node(journal) for _ in range(data.draw(st.integers(2, 3)))]
    for _ in range(data.draw(st.integers(0, 5))):
        journal.commit(TOPIC, an_event())
    first = {topic: len(journal.events.get(topic, [])) for topic in TOPICS}
    for step in range(data.draw(st.integers(1, 60))):
        node = data.draw(st.sampled_from(nodes))
        topic = data.draw(st.sampled_from(TOPICS))
        match data.draw(st.sampled_from(["commit", "commit", "carry", "carry", "again", "lose", "look", "read"])):
            case "commit":
                # To its own node it comes in the order of the commits, if not at once; to others as Redis pleases.
                publication = journal.commit(topic, an_event(step))
                for other in nodes:
                    other.under_way.append(publication)
            case "carry" if node.under_way:
                node.take(node.under_way.pop(data.draw(st.integers(0, len(node.under_way) - 1))))
            case "again" if node.under_way:
                node.take(data.draw(st.sampled_from(node.under_way)))
            case "lose" if node.under_way:
                node.under_way.pop(data.draw(st.integers(0, len(node.under_way) - 1)))
            case "look":
                node.look(topic)
            case "read":
                line = node.lines[topic]
                if line.delivered is not None:
                    # The page may be older than what came meanwhile, and was asked for from an earlier place.
                    after = data.draw(st.integers(0, line.delivered))
                    assert not node.read(topic, after, data.draw(st.integers(1, 8)), 0)
    for node in nodes:
        for topic in TOPICS:
            # Whatever is still under way is lost; the next look finds it.
            node.look(topic)
            line = node.lines[topic]
            rounds = 0
            while line.behind:
                assert line.delivered is not None
                assert not node.read(topic, line.delivered, 3, line.known)
                rounds += 1
                assert rounds < 100, "it stands still"
            offsets = [publication.position.offset for publication in node.heard[topic]]
            head = len(journal.events.get(topic, []))
            assert offsets == list(range(node.began[topic] + 1, head + 1))
            assert node.began[topic] >= first[topic]
            assert [publication.event for publication in node.heard[topic]] == journal.events.get(topic, [])[
                node.began[topic] :
            ]
            kept = line.after(max(head - 4, node.began[topic]), 10)
            assert kept is not None and [one.position.offset for one in kept] == offsets[-4:]


def a_line(head: int = 0) -> tuple[SharedJournal, Line]:
    journal, line = SharedJournal(), Line(TOPIC)
    for number in range(head):
        journal.commit(TOPIC, an_event(number))
    line.head(head)
    return journal, line


def test_history_that_is_gone_is_told_and_gone_beyond() -> None:
    journal, line = a_line(2)
    for number in range(8):
        journal.commit(TOPIC, an_event(number))
    journal.forget(TOPIC, 6)
    line.head(10)
    told = line.page(journal.page(TOPIC, 2, 100), "e1", line.known)
    assert told.lost and [one.position.offset for one in told.out] == [7, 8, 9, 10]
    journal.forget(TOPIC, 12)
    journal.commit(TOPIC, an_event())
    journal.commit(TOPIC, an_event())
    line.head(12)
    told = line.page(journal.page(TOPIC, 10, 100), "e1", line.known)
    assert told.lost and not told.out and not line.behind and line.delivered == 12


def test_a_hole_in_the_journal_is_told_and_gone_beyond() -> None:
    journal, line = a_line(2)
    for number in range(5):
        journal.commit(TOPIC, an_event(number))
    line.head(7)
    # What is pruned by its age may leave an older one behind, if the nodes' clocks differ a little.
    whole = journal.page(TOPIC, 2, 100)
    told = line.page(replace(whole, oldest=1, events=(whole.events[0], *whole.events[2:])), "e1", line.known)
    assert not told.lost and [one.position.offset for one in told.out] == [3] and line.behind
    told = line.page(replace(whole, oldest=1, events=whole.events[2:]), "e1", line.known)
    assert told.lost and [one.position.offset for one in told.out] == [5, 6, 7]
    journal.commit(TOPIC, an_event())
    line.head(8)
    told = line.page(replace(journal.page(TOPIC, 7, 100), oldest=1, events=()), "e1", line.known)
    assert told.lost and not told.out and not line.behind


def test_a_topic_that_vanished_is_not_waited_for() -> None:
    journal, line = a_line(2)
    publications = [journal.commit(TOPIC, an_event()) for _ in range(3)]
    line.take(publications[2])
    journal.events.clear()
    assert line.behind
    told = line.page(journal.page(TOPIC, 2, 100), "e1", line.known)
    assert told.lost and not line.behind


def test_more_than_can_be_kept_aside_is_read() -> None:
    journal, line = a_line()
    publications = [journal.commit(TOPIC, an_event()) for _ in range(MAX_ASIDE + 50)]
    for publication in publications[1:]:
        assert not line.take(publication)
    out = list(line.take(publications[0]))
    assert len(out) == MAX_ASIDE + 1 and line.behind
    told = line.page(journal.page(TOPIC, len(out), 100), "e1", line.known)
    assert not told.lost and len(out) + len(told.out) == len(publications) and not line.behind


def test_of_two_the_one_that_knows_its_origin_is_handed_out() -> None:
    journal, line = a_line()
    first, second = journal.commit(TOPIC, an_event()), journal.commit(TOPIC, an_event())
    line.take(second)
    line.take(Publication(TOPIC, second.position, second.event, Origin(1, "r")))
    line.take(second)
    page = journal.page(TOPIC, 0, 1)
    told = line.page(page, "e1", 2)
    assert [one.origin for one in told.out] == [None, Origin(1, "r")]
    assert [one.position for one in told.out] == [first.position, second.position]


def test_what_cannot_be_read_is_skipped() -> None:
    journal, line = a_line()
    publications = [journal.commit(TOPIC, an_event()) for _ in range(3)]
    line.take(publications[2])
    assert [one.position.offset for one in line.skip(2)] == [3]
    assert not line.behind
