"""What two stores on one database do together, as the stores of two nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from sqlalchemy.util import await_only
from tests.contract.systems import START, a_session, a_user, an_application
from tests.databases import a_database, execute, under_way

from offhook.codes import EndReason
from offhook.domain.accounts import Application, DuplicatePolicy, SessionPolicy, User, UserFilter
from offhook.domain.events import (
    Event,
    PresenceChanged,
    Topic,
    UserUpdated,
    application_topic,
    user_topic,
)
from offhook.domain.messages import Message
from offhook.domain.sessions import Authentication, Client, Session, SessionState
from offhook.errors import AccessDenied
from offhook.ports import Publication, Transaction
from offhook.services.authentication import Newcomer, Verdict
from offhook.services.presence import leave
from offhook.services.starting import Begun, Starter, ended_with_story
from offhook.storage.postgres import PostgresStore

CLIENT = Client("chatkitty", "ChatKitty-JS-Core/1.3.5", "127.0.0.1", True)
GUEST = Verdict(Authentication.GUEST, Newcomer.GUEST)


class LocalClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class Pair:
    """Two stores, and what each handed out."""

    url: str
    stores: Sequence[PostgresStore]
    told: Sequence[list[Publication]]
    starters: Sequence[Starter] = field(default=(Starter(LocalClock(), "one"), Starter(LocalClock(), "other")))

    async def each(self, count: int, unit: Callable[[int], Callable[[Transaction], object]]) -> list[object]:
        """Performs units of work at once, on one store and the other by turns; returns outcomes and errors."""
        return await asyncio.gather(
            *(self.stores[number % 2].transact(unit(number)) for number in range(count)), return_exceptions=True
        )

    async def journal(self, topic: Topic) -> Sequence[tuple[int, Event]]:
        """All that was published."""
        return (await self.stores[0].journal.read(topic, 0, 100_000)).events

    async def deadlocks(self) -> int:
        """How many deadlocks the server had to end."""
        await execute("SELECT pg_stat_force_next_flush()", url=self.url)
        name = self.url.rpartition("/")[2]
        return int((await execute("SELECT deadlocks FROM pg_stat_database WHERE datname = $1", name))[0][0])


@pytest.fixture
def url() -> Iterator[str]:
    """A database with tables."""
    with a_database() as url:
        yield url


@pytest.fixture
async def pair(url: str) -> AsyncIterator[Pair]:
    """Two stores on it."""
    told: tuple[list[Publication], list[Publication]] = ([], [])
    stores = [await PostgresStore.open(url, heard.extend, pool_size=6) for heard in told]
    yield Pair(url, stores, told)
    for store in stores:
        await store.close()


async def add(pair: Pair, application: Application, *names: str) -> tuple[Application, list[User]]:
    def work(tx: Transaction) -> tuple[Application, list[User]]:
        added = tx.applications.add(application)
        return added, [tx.users.add(a_user(added.id, name)) for name in names]

    return await pair.stores[0].transact(work)


async def live(pair: Pair, user: User) -> Sequence[Session]:
    return await pair.stores[1].query(lambda tx: tx.sessions.live_of(user.id))


def heard_of(pair: Pair, topic: Topic) -> list[int]:
    """Offsets in a topic that the stores handed out, each store's own in order."""
    for told in pair.told:
        own = [publication.position.offset for publication in told if publication.topic == topic]
        assert own == sorted(own)
    return sorted(p.position.offset for told in pair.told for p in told if p.topic == topic)


@pytest.mark.parametrize("policy", [DuplicatePolicy.REJECT_NEW, DuplicatePolicy.END_OLDEST])
async def test_starts_of_one_user_never_exceed_the_limit(pair: Pair, policy: DuplicatePolicy) -> None:
    sessions = SessionPolicy(3, policy)
    application, _ = await add(pair, an_application(sessions=sessions))

    def start(number: int) -> Callable[[Transaction], Begun]:
        return lambda tx: pair.starters[number % 2].begin(tx, application, "alice", GUEST, CLIENT)

    outcomes = await pair.each(50, start)
    begun = [outcome for outcome in outcomes if isinstance(outcome, Begun)]
    assert all(isinstance(outcome, Begun | AccessDenied) for outcome in outcomes), outcomes
    assert len({one.user.id for one in begun}) == 1
    left = await live(pair, begun[0].user)
    assert len(left) == 3
    if policy is DuplicatePolicy.REJECT_NEW:
        assert {session.id for session in left} == {one.session.id for one in begun}
    else:
        assert len(begun) == 50
        ended = [session.id for one in begun for session in one.ended]
        # Each was ended by one start alone.
        assert len(ended) == len(set(ended)) == 47
    # The user was announced once, by whoever came first.
    topic = application_topic(application.id)
    events = [event for _, event in await pair.journal(topic)]
    assert [event.user.online for event in events if isinstance(event, PresenceChanged)] == [True]
    assert await pair.deadlocks() == 0


async def test_presence_and_what_was_told_of_it_agree(pair: Pair) -> None:
    application, users = await add(pair, an_application(sessions=SessionPolicy(100)), "alice", "bob", "carol")

    def start_and_end(number: int) -> Callable[[Transaction], None]:
        user = users[number % 3]

        def start(tx: Transaction) -> None:
            pair.starters[number % 2].begin(tx, application, user.name, GUEST, CLIENT)

        def end(tx: Transaction) -> None:
            assert tx.users.get(application.id, user.id) is not None
            now = datetime.now(UTC)
            for session in tx.sessions.live_of(user.id)[:2]:
                tx.sessions.save(*ended_with_story(session, now, EndReason.CLIENT, ""))
            leave(tx, application.id, user.id, now)

        return start if number % 5 < 2 else end

    outcomes = await pair.each(150, start_and_end)
    assert [outcome for outcome in outcomes if isinstance(outcome, BaseException)] == []
    last: dict[str, bool] = {}
    for _, event in await pair.journal(application_topic(application.id)):
        assert isinstance(event, PresenceChanged)
        assert last.get(event.user.name, False) is not event.user.online  # Each changes something.
        last[event.user.name] = event.user.online
    for user in users:
        stored = await pair.stores[0].query(lambda tx, user=user: tx.users.get(application.id, user.id))  # type: ignore[misc]
        assert stored is not None
        assert stored.online is last.get(user.name, False) is bool(await live(pair, user))


async def test_offsets_have_no_gap_and_each_is_handed_out_once_and_in_order(pair: Pair) -> None:
    application, users = await add(pair, an_application(), *(f"user-{number}" for number in range(10)))
    everybody = application_topic(application.id)

    def publish(number: int) -> Callable[[Transaction], None]:
        user = users[number % 10]

        def work(tx: Transaction) -> None:
            tx.publish(everybody, UserUpdated(user))
            tx.publish(user_topic(user.id), UserUpdated(user))
            tx.publish(everybody, PresenceChanged(user))
            if number % 7 == 0:
                raise ValueError("no")

        return work

    outcomes = await pair.each(200, publish)
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert {type(error) for error in failed} == {ValueError}
    done = 200 - len(failed)
    assert heard_of(pair, everybody) == list(range(1, 2 * done + 1))
    recorded = await pair.journal(everybody)
    assert [offset for offset, _ in recorded] == list(range(1, 2 * done + 1))
    # What one unit published lies together.
    for (_, first), (_, second) in zip(recorded[::2], recorded[1::2], strict=True):
        assert isinstance(first, UserUpdated) and isinstance(second, PresenceChanged)
        assert first.user == second.user
    heads = await pair.stores[1].journal.heads([everybody, *(user_topic(user.id) for user in users), Topic("user.0")])
    assert heads[everybody] == 2 * done and heads[Topic("user.0")] == 0
    assert sum(heads[user_topic(user.id)] for user in users) == done
    for user in users:
        topic = user_topic(user.id)
        assert heard_of(pair, topic) == list(range(1, heads[topic] + 1))


async def test_units_that_need_two_users_never_wait_for_each_other_in_a_ring(pair: Pair) -> None:
    application, users = await add(pair, an_application(), *(f"user-{number}" for number in range(4)))

    def swap(number: int) -> Callable[[Transaction], int]:
        one, other = users[number % 4], users[(number * 7 + 1) % 4]
        runs = 0

        def work(tx: Transaction) -> int:
            nonlocal runs
            runs += 1
            assert tx.users.by_name(application.id, one.name) is not None
            assert tx.users.get(application.id, other.id) is not None
            tx.publish(user_topic(one.id), UserUpdated(other))
            tx.publish(user_topic(other.id), UserUpdated(one))
            return runs

        return work

    outcomes = await pair.each(200, swap)
    assert [outcome for outcome in outcomes if isinstance(outcome, BaseException)] == []
    # A unit that was run again published no more than one that was not.
    heads = await pair.stores[0].journal.heads([user_topic(user.id) for user in users])
    assert sum(heads.values()) == 400
    assert await pair.deadlocks() == 0


async def test_a_deadlock_ends_in_both_being_done(pair: Pair) -> None:
    application, _ = await add(pair, an_application("one"))
    await add(pair, an_application("other"))
    both_hold = asyncio.Barrier(2)

    def both(first: str, second: str) -> Callable[[Transaction], int]:
        runs = 0

        def work(tx: Transaction) -> int:
            nonlocal runs
            runs += 1
            assert tx.applications.by_name(first) is not None
            tx.users.add(a_user(application.id, first))
            if runs == 1:
                await_only(both_hold.wait())
            assert tx.applications.by_name(second) is not None
            return runs

        return work

    async with asyncio.timeout(20):
        runs = await asyncio.gather(
            pair.stores[0].transact(both("one", "other")), pair.stores[1].transact(both("other", "one"))
        )
    assert sorted(runs) == [1, 2]
    count = await pair.stores[0].query(lambda tx: tx.users.count(application.id, UserFilter()))
    assert count == 2


async def test_the_first_message_between_two_may_be_sent_by_both_at_once(pair: Pair) -> None:
    _, (alice, bob) = await add(pair, an_application(), "alice", "bob")

    def send(number: int) -> Callable[[Transaction], int]:
        sender, recipient = (alice, bob) if number % 2 else (bob, alice)

        def work(tx: Transaction) -> int:
            known = tx.users.by_name(recipient.application_id, recipient.name)
            assert known is not None
            conversation = tx.messages.conversation(sender, known)
            tx.messages.add(
                Message(
                    id=0,
                    application_id=known.application_id,
                    conversation_id=conversation.id,
                    sender_id=sender.id,
                    sender=sender.name,
                    recipient_id=known.id,
                    recipient=known.name,
                    text=str(number),
                    sent_at=START,
                )
            )
            return conversation.id

        return work

    outcomes = await pair.each(20, send)
    assert len(set(outcomes)) == 1, outcomes


async def test_overdue_sessions_are_handled_by_one_node(pair: Pair) -> None:
    _, users = await add(pair, an_application(), *(f"user-{number}" for number in range(20)))
    now = datetime.now(UTC)

    def suspended(tx: Transaction) -> None:
        for user in users:
            tx.sessions.add(a_session(user, state=SessionState.SUSPENDED, suspended_at=now, resumable_until=now))

    await pair.stores[0].transact(suspended)

    def sweep(_: int) -> Callable[[Transaction], list[int]]:
        def work(tx: Transaction) -> list[int]:
            due = tx.sessions.due(datetime.now(UTC), 500)
            for session in due:
                tx.sessions.save(*ended_with_story(session, now, EndReason.LEASE_EXPIRED, ""))
            return [session.id for session in due]

        return work

    handled = [session_id for outcome in await pair.each(8, sweep) for session_id in outcome]  # type: ignore[attr-defined]
    assert len(handled) == len(set(handled)) == 20


async def test_a_lease_is_one_nodes(pair: Pair) -> None:
    got = await asyncio.gather(*(pair.stores[n % 2].journal.acquire_lease("x", f"h{n}", 10) for n in range(20)))
    assert sum(got) == 1
    holder = await pair.stores[0].journal.lease_holder("x")
    assert holder == await pair.stores[1].journal.lease_holder("x") == f"h{got.index(True)}"
    assert pair.stores[0].journal.epoch == pair.stores[1].journal.epoch


async def test_a_token_is_used_once(pair: Pair) -> None:
    until = datetime.now(UTC)
    used = await pair.each(20, lambda _: lambda tx: tx.use_token("digest", until))
    assert sum(map(bool, used)) == 1


async def meanwhile(
    pair: Pair, first: Callable[[Transaction], object], second: Callable[[Transaction], object]
) -> None:
    """Does one unit of work, and another that waits for the first one's commit at some place."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"
    async with under_way(pair.stores[0], first):
        other = asyncio.create_task(pair.stores[1].transact(second))
        async with asyncio.timeout(3):
            while not (await execute(sql, pair.url.rpartition("/")[2]))[0][0]:
                await asyncio.sleep(0.01)
    await other


async def talk(pair: Pair) -> tuple[int, User, User]:
    """Two users and a message between them; with the conversation's id."""
    application, (alice, bob) = await add(pair, an_application(), "alice", "bob")

    def send(tx: Transaction) -> int:
        conversation_id = tx.messages.conversation(alice, bob).id
        names = {"sender_id": alice.id, "sender": "alice", "recipient_id": bob.id, "recipient": "bob"}
        tx.messages.add(
            Message(0, application.id, conversation_id, **names, text="hello", sent_at=START)  # type: ignore[arg-type]
        )
        return conversation_id

    return await pair.stores[0].transact(send), alice, bob


async def test_what_both_delete_at_once_is_gone_for_good(pair: Pair) -> None:
    conversation_id, alice, bob = await talk(pair)
    await meanwhile(
        pair,
        lambda tx: tx.messages.hide(alice.id, conversation_id, None),
        lambda tx: tx.messages.hide(bob.id, conversation_id, None),
    )
    assert await execute("SELECT id FROM messages", url=pair.url) == []


async def test_the_conversation_of_two_who_are_deleted_at_once_is_gone(pair: Pair) -> None:
    _, alice, bob = await talk(pair)
    await meanwhile(
        pair,
        lambda tx: tx.users.delete(alice.application_id, alice.id),
        lambda tx: tx.users.delete(bob.application_id, bob.id),
    )
    assert await execute("SELECT id FROM conversations", url=pair.url) == []


async def test_a_session_whose_user_is_gone_can_be_had_beside_somebody_else(pair: Pair) -> None:
    application, (alice, bob) = await add(pair, an_application(), "alice", "bob")
    session = await pair.stores[0].transact(lambda tx: tx.sessions.add(a_session(alice)))
    await pair.stores[0].transact(lambda tx: tx.users.delete(application.id, alice.id))

    def work(tx: Transaction) -> Session | None:
        assert tx.users.get(application.id, bob.id) is not None
        return tx.sessions.get(session.id)

    async with asyncio.timeout(5):
        assert await pair.stores[0].transact(work) == session
