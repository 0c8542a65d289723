"""When subscriptions are renewed, tokens refreshed, sockets opened again (Kandy protocol notes, 2.4, 3.7, 4.4)."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.client.kandy.scripted import SkippingLoop, Wire

from offhook.client.errors import ConnectionFailed
from offhook.client.kandy import notifications
from offhook.client.kandy.notifications import Channel
from offhook.client.kandy.subscription import SHORTEST, renewal_delay
from offhook.client.kandy.uc import refresh_delay
from offhook.client.reconnect import NEVER, Reconnect
from offhook.client.transport import Socket, Transport


@given(st.integers(1, 200), st.floats(60, 86_400))
def test_renewals_come_around_half_of_the_life(attempt: int, expires: float) -> None:
    base = max(SHORTEST, expires / 2.0 ** min(attempt, 60))
    assert 0.8 * base <= renewal_delay(attempt, expires) <= 1.2 * base


def test_renewals_are_spread() -> None:
    assert len({renewal_delay(1, 3600) for _ in range(50)}) > 40


@pytest.mark.parametrize(
    ("expires", "margin", "expected"), [(3600, 300, 3300), (301, 300, 1), (300, 300, 150), (0, 300, 1), (600, 0, 600)]
)
def test_tokens_are_refreshed_before_their_end(expires: float, margin: float, expected: float) -> None:
    assert refresh_delay(expires, margin) == expected


class Script(Transport):
    """A network that does what it is told.

    Args:
        acts: of each attempt, one after the other: an error, or the close code of a socket with its life in seconds.

    Attributes:
        attempts: when each was made, on the event loop's clock.
        said: what clients said.
    """

    def __init__(self, *acts: ConnectionFailed | tuple[int, float]) -> None:
        super().__init__()
        self._acts = list(acts)
        self.attempts: list[float] = []
        self.said: list[tuple[float, str | bytes]] = []

    async def websocket(self, url: str, **_: object) -> Socket:
        now = asyncio.get_running_loop().time()
        self.attempts.append(now)
        act = self._acts.pop(0)
        if isinstance(act, ConnectionFailed):
            raise act
        return Wire(self.said, act[0], now + act[1])


def play(script: Script, policy: Reconnect) -> list[bool]:
    """Plays a channel to its end; what it told of itself."""
    told: list[bool] = []

    async def whole() -> None:
        channel = Channel(script, lambda: "ws://x", policy, 30.0, lambda _: None, told.append)
        try:
            await channel.open()
            await channel.run()
        finally:
            await channel.close()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(whole())
    return told


NOBODY = ConnectionFailed("away")
UNKNOWN = ConnectionFailed("refused", 404)


def test_a_final_close_is_final() -> None:
    script = Script((1000, 10))
    assert play(script, Reconnect()) == [True, False] and len(script.attempts) == 1


def test_signs_of_life() -> None:
    script = Script((1000, 100))
    play(script, Reconnect())
    began = script.attempts[0]
    assert [(round(at - began), said) for at, said in script.said] == [
        (second, '{"message_type":"ping"}') for second in (0, 30, 60, 90)
    ]


def test_other_closes_are_followed_by_another_socket() -> None:
    script = Script((1006, 100), (1001, 100), (4000, 100), NOBODY, NOBODY, (1000, 1))
    assert play(script, Reconnect(attempts=3)) == [True, False] * 4


def test_a_channel_that_is_unknown_three_times_is_lost() -> None:
    script = Script((1006, 100), UNKNOWN, UNKNOWN, NOBODY, UNKNOWN, UNKNOWN, UNKNOWN)
    assert play(script, Reconnect()) == [True, False] and len(script.attempts) == 7


@pytest.mark.parametrize(("policy", "attempts"), [(NEVER, 1), (Reconnect(attempts=4), 4)])
def test_a_policy_that_gives_up(policy: Reconnect, attempts: int) -> None:
    script = Script((1006, 100), *[NOBODY] * attempts)
    assert play(script, policy) == [True, False] and len(script.attempts) == attempts + 1


def test_a_server_that_closes_at_once_is_not_stormed() -> None:
    script = Script(*[(4000, 0.01)] * 40, (1000, 0))
    play(script, Reconnect(initial=1, factor=2, maximum=30))
    # Full jitter: half of the bound on average, and the bound is soon 30 s.
    assert script.attempts[-1] - script.attempts[0] > 120


def test_a_server_that_always_closes_at_once_is_given_up() -> None:
    script = Script(*[(4000, 0.01)] * 40)
    play(script, Reconnect(attempts=5))
    assert len(script.attempts) == 6


def test_what_the_server_asks_for_comes_first() -> None:
    script = Script((1012, 100), ConnectionFailed("busy", 503, 50.0), (1000, 0))
    play(script, Reconnect())
    assert script.attempts[2] - script.attempts[1] >= 50


@pytest.mark.parametrize(
    ("act", "attempts"), [(NOBODY, notifications.FIRST_ATTEMPTS), (UNKNOWN, notifications.UNKNOWN)]
)
def test_the_first_socket_is_tried_some_times(act: ConnectionFailed, attempts: int) -> None:
    script = Script(*[act] * 9)
    with pytest.raises(ConnectionFailed):
        play(script, Reconnect())
    assert len(script.attempts) == attempts


def test_closing_in_the_middle_leaves_nothing() -> None:
    script = Script((1006, 1000))

    async def whole() -> None:
        told: list[bool] = []
        channel = Channel(script, lambda: "ws://x", Reconnect(), 30.0, lambda _: None, told.append)
        await channel.open()
        task = asyncio.create_task(channel.run())
        await asyncio.sleep(1)
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
        assert len(asyncio.all_tasks()) == 1

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(whole())
