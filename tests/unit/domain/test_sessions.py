"""The session's state machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
        generation=0,
        node="a",
        started_at=START,
        connected_at=START,
    )


class SessionMachine(RuleBasedStateMachine):
    """Applies every operation in every state, at times that only go on.

    Half of the sessions expire unless they are renewed; those wait for their first connection.
    """

    def __init__(self) -> None:
        super().__init__()
        self.session = new_session()
        self.now = START
        self.policy = SessionPolicy(leave_grace=10, resume_window=60, socket_grace=15)
        self.resumes = 0
        self.connections = 0

    @initialize(leased=st.booleans(), announces=st.booleans())
    def begin(self, leased: bool, announces: bool) -> None:
        self.leased = leased
        self.session = replace(self.session, announces=announces)
        if leased:
            self.session = replace(
                self.session,
                expires_at=START + timedelta(seconds=50),
                resumable_until=START + timedelta(seconds=20),
            )

    @property
    def in_time(self) -> bool:
        limits = (self.session.resumable_until, self.session.expires_at)
        return all(until is None or self.now < until for until in limits)

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: not self.leased or self.session.state is not SessionState.STARTING)
    @rule()
    def activate(self) -> None:
        if self.session.state is SessionState.STARTING:
            self.session = replace(rules.activate(self.session), generation=1)
            self.connections += 1
        else:
            with pytest.raises(Conflict):
                rules.activate(self.session)

    @rule()
    def suspend(self) -> None:
        if self.session.state is SessionState.ACTIVE:
            expires = self.session.expires_at
            self.session = rules.suspend(self.session, self.now, self.policy)
            if expires is None:
                assert self.session.resumable_until == self.now + timedelta(seconds=60)
                assert self.session.leave_at == self.now + timedelta(seconds=10)
            else:
                assert self.session.resumable_until == expires
                assert self.session.leave_at == min(self.now + timedelta(seconds=15), expires)
        else:
            with pytest.raises(Conflict):
                rules.suspend(self.session, self.now, self.policy)

    @rule(seconds=st.integers(1, 60))
    def renew(self, seconds: int) -> None:
        expires = self.now + timedelta(seconds=seconds)
        if not self.session.live:
            with pytest.raises(Conflict):
                rules.renew(self.session, expires)
        elif self.leased:
            before = self.session
            self.session = rules.renew(self.session, expires)
            assert self.session.expires_at == expires
            assert (self.session.state, self.session.generation) == (before.state, before.generation)
            if before.state is not SessionState.SUSPENDED:
                assert self.session.resumable_until == before.resumable_until

    @rule(node=st.sampled_from("ab"))
    def resume(self, node: str) -> None:
        if self.session.live and self.in_time:
            before = self.session
            self.session = rules.resume(self.session, self.now, node, CLIENT)
            self.connections += 1
            self.resumes += before.state is not SessionState.STARTING
            assert self.session.generation == before.generation + 1
            assert self.session.expires_at == before.expires_at
            assert self.session.node == node
        else:
            with pytest.raises(Conflict):
                rules.resume(self.session, self.now, node, CLIENT)

    @precondition(lambda self: self.session.live)
    @rule()
    def sweep(self) -> None:
        reason = rules.overdue(self.session, self.now)
        assert (reason is None) is self.in_time
        if reason is not None:
            never = self.connections == 0
            expired = self.session.expires_at is not None and self.session.expires_at <= self.now
            assert (reason is EndReason.NOT_RENEWED) is expired
            assert (reason is EndReason.NOT_CONNECTED) is (never and not expired)
            self.session = rules.end(self.session, self.now, reason)

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
    def waits_only_without_a_connection(self) -> None:
        state = self.session.state
        waits = state is SessionState.SUSPENDED or (state is SessionState.STARTING and self.leased)
        assert (self.session.resumable_until is not None) == waits
        assert (self.session.leave_at is not None) == (state is SessionState.SUSPENDED)

    @invariant()
    def counts_its_connections(self) -> None:
        assert self.session.resumes == self.resumes
        assert self.session.generation == self.connections

    @invariant()
    def is_online_only_with_a_connection_or_in_the_grace(self) -> None:
        online = self.session.online(self.now)
        if not self.session.announces:
            assert not online
        elif self.session.state is SessionState.ACTIVE:
            assert online
        elif online:
            assert self.session.suspended_at is not None
            assert self.now - self.session.suspended_at < timedelta(seconds=15 if self.leased else 10)


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = hypothesis_settings(max_examples=200, stateful_step_count=20, deadline=None)


def test_the_grace_never_outlasts_the_resume_window() -> None:
    session = rules.suspend(rules.activate(new_session()), START, SessionPolicy(leave_grace=10, resume_window=2))
    assert session.leave_at == session.resumable_until == START + timedelta(seconds=2)
