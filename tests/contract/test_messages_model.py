"""Any sequence of what can be done to messages leaves what a list would hold."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.contract.engines import ENGINES
from tests.contract.systems import System, a_user
from tests.contract.test_messages import write

from offhook.domain.accounts import User
from offhook.domain.messages import Message, Thread
from offhook.ports import Transaction

T = TypeVar("T")

NAMES = ("alice", "bob", "carol")
WHO = st.integers(0, len(NAMES) - 1)
PICK = st.integers(0, 2**16)


class MessagesModel(RuleBasedStateMachine):
    """Three users who write each other, stored and as a list says. At times one is deleted, and the name used again."""

    engine_name: str

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.engine = ENGINES[self.engine_name](Path(self.folder.name))
        self.system: System = self.runner.run(self.engine.open())
        self.users: list[User] = []
        self.sent: list[Message] = []
        self.hidden: set[tuple[int, int]] = set()
        self.delivered: dict[int, int] = {}

    def transact(self, work: Callable[[Transaction], T]) -> T:
        return self.runner.run(self.system.store.transact(work))

    def query(self, work: Callable[[Transaction], T]) -> T:
        return self.runner.run(self.system.store.query(work))

    def teardown(self) -> None:
        self.runner.run(self.system.close())
        self.runner.close()
        self.engine.remove()
        self.folder.cleanup()

    def visible(self, user: User, conversation_id: int | None = None) -> list[Message]:
        """What the user has not deleted, oldest first."""
        return [
            message
            for message in self.sent
            if user.id in (message.sender_id, message.recipient_id)
            and (user.id, message.id) not in self.hidden
            and conversation_id in (None, message.conversation_id)
        ]

    def pending(self, user: User) -> list[Message]:
        """What no client of the user is known to have got."""
        after = self.delivered.get(user.id, 0)
        return [message for message in self.visible(user) if message.recipient_id == user.id and message.id > after]

    @initialize()
    def three_users(self) -> None:
        application = self.runner.run(self.system.application())
        self.users = self.runner.run(self.system.users(application, *NAMES))

    @rule(sender=WHO, recipient=WHO, count=st.integers(1, 3))
    def send(self, sender: int, recipient: int, count: int) -> None:
        one, other = self.users[sender], self.users[recipient]
        number = len(self.sent)
        added = self.transact(lambda tx: [write(tx, one, other, f"{number + i}", number + i) for i in range(count)])
        assert all(message.id > max((m.id for m in self.sent), default=0) for message in added)
        self.sent += added

    @rule(who=WHO, pick=PICK, all_of_it=st.booleans())
    def hide(self, who: int, pick: int, all_of_it: bool) -> None:
        if not self.sent:
            return
        user, message = self.users[who], self.sent[pick % len(self.sent)]
        wanted = None if all_of_it else message.id
        gone = [m.id for m in self.visible(user, message.conversation_id) if wanted in (None, m.id)]
        assert self.transact(lambda tx: tx.messages.hide(user.id, message.conversation_id, wanted)) == len(gone)
        self.hidden |= {(user.id, key) for key in gone}

    @rule(marks=st.lists(st.tuples(WHO, PICK), max_size=3))
    def mark(self, marks: list[tuple[int, int]]) -> None:
        if not self.sent:
            return
        told = [(self.users[who].id, self.sent[pick % len(self.sent)].id) for who, pick in marks]
        self.transact(lambda tx: tx.messages.mark_delivered([*told, (99_999, 1)]))
        for user_id, last in told:
            self.delivered[user_id] = max(last, self.delivered.get(user_id, 0))

    @rule(who=WHO)
    def replace(self, who: int) -> None:
        old = self.users[who]

        def work(tx: Transaction) -> User:
            tx.users.delete(old.application_id, old.id)
            return tx.users.add(a_user(old.application_id, old.name))

        self.users[who] = self.transact(work)

    @rule(who=WHO, after=PICK, until=PICK, limit=st.integers(1, 3))
    def deliver(self, who: int, after: int, until: int, limit: int) -> None:
        user, last = self.users[who], len(self.sent) + 1
        after, until = after % (last + 1), until % (last + 1)
        expected = [message for message in self.pending(user) if after < message.id <= until]
        assert self.query(lambda tx: tx.messages.undelivered(user.id, after, until, limit)) == expected[:limit]

    @rule(who=WHO, pick=PICK, limit=st.integers(1, 4))
    def read(self, who: int, pick: int, limit: int) -> None:
        if not self.sent:
            return
        user, message = self.users[who], self.sent[pick % len(self.sent)]
        seen = self.visible(user, message.conversation_id)
        assert self.query(lambda tx: tx.messages.list(user.id, message.conversation_id, limit)) == seen[-limit:]
        assert self.query(lambda tx: tx.messages.get(user.id, message.id)) == (message if message in seen else None)

    @invariant()
    def users_see_what_the_model_says(self) -> None:
        for user in self.users:
            waits = self.query(lambda tx, key=user.id: tx.messages.waiting(key))  # type: ignore[misc]
            assert waits == max((message.id for message in self.pending(user)), default=0)
            threads = self.query(lambda tx, key=user.id: tx.messages.threads(key, 2))  # type: ignore[misc]
            assert threads == self.threads(user)[:2]

    def threads(self, user: User) -> list[Thread]:
        """The user's threads, the latest first."""
        found: dict[int, Thread] = {}
        for message in self.visible(user):
            before = found.pop(message.conversation_id, None)
            received, peer = None if before is None else before.received_at, message.recipient
            if message.recipient_id == user.id:
                received, peer = message.sent_at, message.sender
            found[message.conversation_id] = Thread(message.conversation_id, peer, message, received)
        return list(reversed(found.values()))


@pytest.mark.parametrize("engine_name", sorted(ENGINES))
def test_messages_are_what_a_list_would_hold(engine_name: str) -> None:
    run_state_machine_as_test(
        type("Messages", (MessagesModel,), {"engine_name": engine_name}),
        settings=settings(max_examples=25, stateful_step_count=30, deadline=None),
    )
