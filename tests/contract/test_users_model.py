"""Any sequence of what can be done to users leaves what a dictionary would hold."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from tests.contract.engines import ENGINES
from tests.contract.systems import START, System, a_user

from offhook.domain.accounts import User, UserChanges, UserFilter
from offhook.domain.values import PageRequest
from offhook.errors import Conflict
from offhook.ports import Transaction

T = TypeVar("T")

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=6)
NAMES = st.sampled_from(["alice", "Alice", "bob", "josé", "%", "a_b"]) | TEXT
PROPERTIES = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT, max_size=3)
CHANGES = st.builds(
    UserChanges,
    display_name=st.none() | NAMES,
    picture=st.none() | TEXT,
    status=st.none() | TEXT,
    properties=st.none() | PROPERTIES,
    guest=st.none() | st.booleans(),
    enabled=st.none() | st.booleans(),
    closed=st.none() | st.booleans(),
    note=st.none() | st.just("") | TEXT,
)
FIELDS = ("display_name", "picture", "status", "properties", "guest", "enabled", "closed", "note")


class UsersModel(RuleBasedStateMachine):
    """Users of two applications, stored and as a dictionary says."""

    engine_name: str
    users = Bundle("users")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.engine = ENGINES[self.engine_name](Path(self.folder.name))
        self.system: System = self.runner.run(self.engine.open())
        self.model: dict[int, User] = {}
        self.blocks: set[tuple[int, int]] = set()
        self.applications: list[int] = []

    def transact(self, work: Callable[[Transaction], T]) -> T:
        return self.runner.run(self.system.store.transact(work))

    def query(self, work: Callable[[Transaction], T]) -> T:
        return self.runner.run(self.system.store.query(work))

    def teardown(self) -> None:
        self.runner.run(self.system.close())
        self.runner.close()
        self.engine.remove()
        self.folder.cleanup()

    @initialize()
    def two_applications(self) -> None:
        for name in ("one", "two"):
            self.applications.append(self.runner.run(self.system.application(name)).id)

    @rule(target=users, which=st.integers(0, 1), name=NAMES, display_name=NAMES)
    def add(self, which: int, name: str, display_name: str) -> object:
        wanted = a_user(self.applications[which], name, display_name=display_name)
        taken = any((u.application_id, u.name) == (wanted.application_id, name) for u in self.model.values())
        try:
            added = self.transact(lambda tx: tx.users.add(wanted))
        except Conflict:
            assert taken
            return multiple()
        assert not taken
        assert added.id not in self.model
        self.model[added.id] = added
        return added.id

    @rule(user_id=users, changes=CHANGES)
    def change(self, user_id: int, changes: UserChanges) -> None:
        if user_id in self.model:
            before = self.model[user_id]
            given = {name: value for name in FIELDS if (value := getattr(changes, name)) is not None}
            self.model[user_id] = replace(before, **given)
            assert self.transact(lambda tx: tx.users.change(before, changes)) == self.model[user_id]

    @rule(user_id=users, online=st.booleans())
    def set_online(self, user_id: int, online: bool) -> None:
        if user_id in self.model:
            before = self.model[user_id]
            self.model[user_id] = self.transact(lambda tx: tx.users.set_online(before, online))
            assert self.model[user_id] == replace(before, online=online)

    @rule(user_id=users, hashed=st.none() | TEXT)
    def set_password(self, user_id: int, hashed: str | None) -> None:
        if user_id in self.model:
            self.transact(lambda tx: tx.users.set_password_hash(user_id, hashed))
            self.model[user_id] = replace(self.model[user_id], has_password=hashed is not None)

    @rule(one=users, other=users)
    def block(self, one: int, other: int) -> None:
        if one in self.model and other in self.model:
            assert self.transact(lambda tx: tx.users.block(one, other, START)) is ((one, other) not in self.blocks)
            self.blocks.add((one, other))

    @rule(one=users, other=users)
    def unblock(self, one: int, other: int) -> None:
        assert self.transact(lambda tx: tx.users.unblock(one, other)) is ((one, other) in self.blocks)
        self.blocks.discard((one, other))

    @rule(user_id=users, which=st.integers(0, 1))
    def delete(self, user_id: int, which: int) -> None:
        application_id = self.applications[which]
        self.transact(lambda tx: tx.users.delete(application_id, user_id))
        if user_id in self.model and self.model[user_id].application_id == application_id:
            del self.model[user_id]
            self.blocks = {pair for pair in self.blocks if user_id not in pair}

    @rule(
        which=st.integers(0, 1),
        text=st.none() | TEXT | st.sampled_from(["a", "É", "%", "_", "\\"]),
        online=st.none() | st.booleans(),
        viewer=st.none() | users,
        page=st.builds(PageRequest, st.integers(0, 2), st.integers(1, 4), st.booleans()),
    )
    def find(self, which: int, text: str | None, online: bool | None, viewer: int | None, page: PageRequest) -> None:
        where = UserFilter(display_name=text, online=online, visible_to=viewer, excluding=viewer)
        hidden = {b for a, b in self.blocks if a == viewer} | {a for a, b in self.blocks if b == viewer} | {viewer}
        expected = [
            user
            for user in sorted(self.model.values(), key=lambda user: (user.display_name.casefold(), user.id))
            if user.application_id == self.applications[which]
            and (text is None or text.casefold() in user.display_name.casefold())
            and (online is None or user.online is online)
            and user.id not in hidden
        ]
        if page.descending:
            expected.reverse()
        found = self.query(lambda tx: tx.users.list(self.applications[which], where, page))
        assert list(found.items) == expected[page.offset : page.offset + page.size]
        assert found.total == len(expected)

    @invariant()
    def stored_is_as_the_model(self) -> None:
        for user in self.model.values():
            assert self.query(partial(_by_name, user)) == user
        assert set(self.query(lambda tx: tx.users.all_blocks())) == self.blocks


def _by_name(user: User, tx: Transaction) -> User | None:
    return tx.users.by_name(user.application_id, user.name)


@pytest.mark.parametrize("engine_name", sorted(ENGINES))
def test_users_are_what_a_dictionary_would_hold(engine_name: str) -> None:
    run_state_machine_as_test(
        type("Users", (UsersModel,), {"engine_name": engine_name}),
        settings=settings(max_examples=20, stateful_step_count=25, deadline=None),
    )
