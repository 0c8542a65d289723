"""The session's state machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from offhook.codes import EndReason
from offhook.domain import sessions as rules
from offhook.domain.accounts import SessionPolicy
from offhook.domain.sessions import Authentication, Client, Session, SessionState
from offhook.errors import Conflict

START = datetime(2026, 1, 1, tzinfo=UTC)
CLIENT = Client("chatkitty", "test/1", "127.0.0.1")


def new_session() -> Session:
    return Session(
        id=1,
        application_id=1,
        user_id=1,
        user_name="jane",
        client=CLIENT,
        authentication=Authentication.GUEST,
        state=SessionState.STARTING,
        generation=1,
        node="a",
        started_at=START,
        connected_at=START,
    )


class SessionMachine(RuleBasedStateMachine):
    """Applies every operation in every state, at times that only go on."""

    def __init__(self) -> None:
        super().__init__()
        self.session = new_session()
        self.now = START
        self.policy = SessionPolicy(leave_grace=10, resume_window=60)
        self.resumes = 0

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def activate(self) -> None:
        if self.session.state is SessionState.STARTING:
            self.session = rules.activate(self.session)
        else:
            with pytest.raises(Conflict):
                rules.activate(self.session)

    @rule()
    def suspend(self) -> None:
        if self.session.state is SessionState.ACTIVE:
            self.session = rules.suspend(self.session, self.now, self.policy)
            assert self.session.resumable_until == self.now + timedelta(seconds=60)
            assert self.session.leave_at == self.now + timedelta(seconds=10)
        else:
            with pytest.raises(Conflict):
                rules.suspend(self.session, self.now, self.policy)

    @rule(node=st.sampled_from("ab"))
    def resume(self, node: str) -> None:
        in_time = self.session.resumable_until is None or self.now < self.session.resumable_until
        if self.session.state in (SessionState.ACTIVE, SessionState.SUSPENDED) and in_time:
            before = self.session.generation
            self.session = rules.resume(self.session, self.now, node, CLIENT)
            self.resumes += 1
            assert self.session.generation == before + 1
            assert self.session.node == node
        else:
            with pytest.raises(Conflict):
                rules.resume(self.session, self.now, node, CLIENT)

    @precondition(lambda self: self.session.live)
    @rule(reason=st.sampled_from(EndReason))
    def end(self, reason: EndReason) -> None:
        self.session = rules.end(self.session, self.now, reason)
        assert self.session.end_reason is reason

    @precondition(lambda self: not self.session.live)
    @rule(reason=st.sampled_from(EndReason))
    def end_again(self, reason: EndReason) -> None:
        with pytest.raises(Conflict):
            rules.end(self.session, self.now, reason)

    @invariant()
    def ends_exactly_once_for_one_reason(self) -> None:
        ended = self.session.state is SessionState.ENDED
        assert (self.session.ended_at is not None) == ended
        assert (self.session.end_reason is not None) == ended

    @invariant()
    def waits_only_while_suspended(self) -> None:
        suspended = self.session.state is SessionState.SUSPENDED
        assert (self.session.resumable_until is not None) == suspended
        assert (self.session.leave_at is not None) == suspended

    @invariant()
    def counts_its_connections(self) -> None:
        assert self.session.resumes == self.resumes
        assert self.session.generation == self.resumes + 1

    @invariant()
    def is_online_only_with_a_connection_or_in_the_grace(self) -> None:
        online = self.session.online(self.now)
        if self.session.state is SessionState.ACTIVE:
            assert online
        elif online:
            assert self.session.suspended_at is not None
            assert self.now - self.session.suspended_at < timedelta(seconds=10)


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = hypothesis_settings(max_examples=200, stateful_step_count=20, deadline=None)


def test_the_grace_never_outlasts_the_resume_window() -> None:
    session = rules.suspend(rules.activate(new_session()), START, SessionPolicy(leave_grace=10, resume_window=2))
    assert session.leave_at == session.resumable_until == START + timedelta(seconds=2)
