"""What goes wrong at the worst moment: handlers that end things, calls that are cancelled, servers that lie."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.unit.client.kandy.scripted import (
    ALICE,
    BOB,
    CONFIGS,
    LINK,
    UC,
    Platform,
    SkippingLoop,
    play,
    refusal,
    sign_in,
    sign_out,
)

from offhook import kandy
from offhook.client.errors import ConnectionFailed
from offhook.client.transport import Socket
from offhook.protocols.kandy import answers, incoming, notifications, uc

CAROL = "carol@example.com"


async def give_up(call: asyncio.Task[None]) -> None:
    """Cancels a call, which then is cancelled."""
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


# --- handlers -----------------------------------------------------------------------------------------------------


@CONFIGS
def test_several_handlers_destroy_it(config: dict[str, object]) -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        async def leave(_: kandy.Event) -> None:
            await client.destroy()

        async def leave_in_time(_: kandy.Event) -> None:
            await asyncio.wait_for(client.destroy(), 60)

        await sign_in(client)
        client.on("ws:change", leave)
        client.on("ws:change", leave_in_time)
        client.on("notification:received", leave_in_time)
        stream = client.events()
        platform.sockets[0].tell(notifications.gone("e-1", 0).decode())
        assert [event.name async for event in stream][:2] == ["notification:received", "ws:change"]

    play(config, act)


@CONFIGS
def test_handlers_may_sign_out_and_in_again(config: dict[str, object]) -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        done = asyncio.Event()

        async def again(_: kandy.Event) -> None:
            await sign_out(client)
            await sign_in(client)
            done.set()

        await sign_in(client)
        client.on("messages:change", again)
        platform.sockets[0].tell(_message(config, 1))
        await done.wait()
        assert client.get_connection().is_connected and len(platform.sockets) == 2 and platform.sockets[0].closed

    play(config, act)


def test_a_handler_that_raises_the_cancellation_of_something_else() -> None:
    complaints: list[str] = []

    async def act(platform: Platform, client: kandy.Client) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        await sign_in(client)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        off = client.on("notification:received", lambda _: future.result())
        platform.sockets[0].tell(_message(LINK, 1))
        stream = client.events("messages:change")
        assert (await anext(stream)).name == "messages:change"
        off()
        platform.sockets[0].tell(_message(LINK, 2))
        assert (await anext(stream)).name == "messages:change"

    play(LINK, act)
    assert complaints == ["A handler of events failed"]


def _message(config: dict[str, object], number: int) -> str:
    """A message of bob's."""
    if config is UC:
        return notifications.uc_message(f"e-{number}", 0, BOB, f"m-{number}", str(number)).decode()
    return notifications.link_message(f"e-{number}", 0, BOB, str(number)).decode()


# --- cancellation ---------------------------------------------------------------------------------------------------


@CONFIGS
def test_a_call_that_is_cancelled_while_its_client_is_destroyed(config: dict[str, object]) -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        platform.held["POST"] = asyncio.Event()
        call = asyncio.create_task(sign_in(client))
        await platform.was_asked("POST")
        end = asyncio.create_task(client.destroy())
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.sleep(0.1)
        platform.held["POST"].set()
        await end
        with pytest.raises((asyncio.CancelledError, kandy.ClientClosed)):
            await call
        # What the server made is ended.
        assert platform.methods[-2:] == ["POST", "DELETE"] and not client.get_connection().is_connected

    play(config, act)


@CONFIGS
def test_it_is_destroyed_while_a_renewal_of_what_is_gone_hangs(config: dict[str, object]) -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        platform.held["PUT"] = asyncio.Event()
        await sign_in(client)
        await platform.was_asked("PUT")
        platform.sockets[0].tell(notifications.gone("e-1", 0).decode())
        await asyncio.sleep(0.1)
        await client.destroy()
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    play(config, act)


@CONFIGS
def test_an_end_that_is_cancelled_while_its_socket_closes(config: dict[str, object]) -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        await sign_in(client)
        platform.sockets[0].closing = 2.0
        call = asyncio.create_task(sign_out(client))
        await asyncio.sleep(1.0)
        await give_up(call)
        assert platform.methods[-1] == "DELETE" and platform.sockets[0].closed
        assert not client.get_connection().is_connected and client.services.get_subscriptions().subscribed == ()
        await sign_in(client)
        assert client.get_connection().is_connected

    play(config, act)


@CONFIGS
def test_a_disconnect_that_is_cancelled_before_it_began(config: dict[str, object]) -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        platform.held["PUT"] = asyncio.Event()
        await sign_in(client)
        # A renewal comes first.
        await platform.was_asked("PUT")
        call = asyncio.create_task(client.disconnect())
        await asyncio.sleep(0.1)
        await give_up(call)
        assert client.get_connection().is_connected and not client.get_connection().is_pending
        assert client.get_user_info().username == ALICE
        platform.held.pop("PUT").set()
        await platform.was_asked("PUT", 2)
        assert client.get_connection().is_connected

    told = play(config, act)
    resub = [event for event in told if isinstance(event, kandy.AuthResub | kandy.SubscriptionResub)]
    assert resub and not any(event.is_failure for event in resub)


# --- several things at once -----------------------------------------------------------------------------------------


def test_another_user_while_one_subscribes() -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        platform.held["POST"] = asyncio.Event()
        call = asyncio.create_task(sign_in(client))
        await platform.was_asked("POST")
        with pytest.raises(kandy.KandyError) as failed:
            client.set_credentials(username=CAROL, password="secret")
        assert failed.value.code == "authentication:1"
        platform.held["POST"].set()
        await call
        assert client.get_user_info().username == ALICE

    play(LINK, act)


def test_a_message_that_is_sent_while_the_connection_ends() -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        await sign_in(client)
        platform.held["send"] = asyncio.Event()
        platform.held["POST"] = platform.held["send"]
        call = asyncio.create_task(client.conversation.create(BOB).send("hello"))
        other = asyncio.create_task(client.presence.update("open", "busy"))
        platform.script["POST"] = [(200, {}, answers.done("presenceResponse"))]
        await platform.was_asked("send")
        stream = client.events("auth:change")
        platform.sockets[0].tell(notifications.gone("e-1", 0).decode())
        await anext(stream)
        platform.held["send"].set()
        message = await call
        await other
        assert (message.id, message.sender, message.text) == ("m-1", ALICE, "hello")
        shown = client.presence.get_self()
        assert shown is not None and shown.user == ALICE

    told = play(UC, act)
    assert [e.destination for e in told if isinstance(e, kandy.MessagesChange)] == [BOB]


def test_a_refusal_of_a_token_does_not_end_the_next_sign_in() -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        await sign_in(client)
        # The refresh is refused while another sign-in is under way, which holds on to the lock.
        platform.held["refresh_token"] = asyncio.Event()
        platform.script["refresh_token"] = [(401, {}, uc.failure(4, "No"))]
        await platform.was_asked("refresh_token")
        platform.held["DELETE"] = asyncio.Event()
        leaving = asyncio.create_task(client.disconnect())
        await platform.was_asked("DELETE")
        joining = asyncio.create_task(sign_in(client))
        await asyncio.sleep(0)
        platform.held.pop("refresh_token").set()
        await asyncio.sleep(0.1)
        platform.held.pop("DELETE").set()
        await asyncio.gather(leaving, joining)
        await asyncio.sleep(10)
        assert client.get_connection().is_connected

    play(UC, act)


# --- servers --------------------------------------------------------------------------------------------------------


def test_a_first_socket_that_is_put_off_for_days() -> None:
    class Busy(Platform):
        async def websocket(self, url: str, **_: object) -> Socket:
            raise ConnectionFailed("busy", 503, 1e9)

    async def whole() -> None:
        platform = Busy()
        async with kandy.create(LINK, transport=platform) as client:
            with pytest.raises(kandy.KandyError) as failed:
                await asyncio.wait_for(sign_in(client), 1000)
            assert failed.value.code == "subscription:1"
        assert platform.methods == ["POST", "DELETE"]

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(whole())


def test_a_server_that_grants_nothing() -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        body = answers.subscribed(subscription="/s/1", channel="/websocket/1", expires=3600, services=[])
        platform.script["POST"] = [(200, {}, body)]
        await sign_in(client)
        assert client.services.get_subscriptions().subscribed == ()
        await client.services.unsubscribe()
        assert not client.get_connection().is_connected and platform.methods == ["POST", "DELETE"]

    play(LINK, act)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_wants_to_be_left_alone_when_tokens_are_refreshed(status: int) -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        platform.script["refresh_token"] = [(status, {"retry-after": "100"}, uc.failure(26, "Later"))]
        await sign_in(client)
        await platform.was_asked("refresh_token", 2)
        first, second = [at for at, name in platform.asked if name == "refresh_token"]
        assert 100 <= second - first < 110
        await asyncio.sleep(1)
        assert client.get_connection().is_connected

    assert not [event for event in play(UC, act) if isinstance(event, kandy.AuthError)]


def test_a_server_that_wants_to_be_left_alone_with_renewals() -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        platform.script["PUT"] = [refusal(503, 26, "3000")]
        await sign_in(client)
        await platform.was_asked("PUT", 2)
        first, second = [at for at, name in platform.asked if name == "PUT"]
        assert second - first >= 3000

    play(LINK, act)


def test_a_reader_outlives_what_nobody_thought_of(monkeypatch: pytest.MonkeyPatch) -> None:
    real = incoming.link_message

    def fail(notification: incoming.Notification) -> object:
        if notification.event_id == "e-1":
            raise RuntimeError("an error of the client's own")
        return real(notification)

    monkeypatch.setattr(incoming, "link_message", fail)
    complaints: list[str] = []

    async def act(platform: Platform, client: kandy.Client) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        await sign_in(client)
        stream = client.events("messages:change")
        for number in (1, 2):
            platform.sockets[0].tell(_message(LINK, number))
        event = await anext(stream)
        assert isinstance(event, kandy.MessagesChange) and event.message is not None and event.message.id == "e-2"

    play(LINK, act)
    assert complaints == ["A notification could not be handled"]


# --- what is told ---------------------------------------------------------------------------------------------------


def test_a_placeholder_is_told() -> None:
    async def whole() -> list[str]:
        config = {**LINK, "subscription": {"websocket": {"server": "$WEBSOCKETFQDN$"}}}
        told: list[str] = []
        async with kandy.create(config, transport=Platform()) as client:
            client.on("subscription:error", lambda event: told.append(event.error.code))
            with pytest.raises(kandy.KandyError):
                await sign_in(client)
        return told

    assert asyncio.run(whole()) == ["configuration"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda client: client.set_credentials(username=ALICE, password="x"),
        lambda client: client.update_token({"accessToken": 1}),
    ],
)
def test_what_uc_does_not_take_is_told(wrong: Callable[[kandy.Client], None]) -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        with pytest.raises(kandy.KandyError) as failed:
            wrong(client)
        assert failed.value.code == "authentication:1"

    assert [event.name for event in play(UC, act)] == ["auth:error"]
