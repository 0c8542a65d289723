"""Two users with clients of the SDK: one speaks all the time, the other listens over a network that breaks."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from tests.chaos.killing import until

from offhook import kandy
from offhook.chatkitty import (
    ChatKitty,
    ClientError,
    CurrentUserOffline,
    CurrentUserOnline,
    Reconnect,
    Resumed,
    SessionEnded,
    Transport,
    UserUpdated,
)
from offhook.testing import BlockingTestServer, FaultProxy

PATIENCE = 2.0
"""Seconds that a client waits for an answer."""
BOUND = PATIENCE + 2.0
"""Seconds after which a call counts as hanging."""
PACE = 0.01
PASSWORD = "correct horse: bättery"
POLICY = Reconnect(initial=0.05, factor=2.0, maximum=0.3)


def transport() -> Transport:
    """One that finds out about a dead connection within a second."""
    return Transport(timeout=PATIENCE, ping_interval=0.4, trust_env=False)


class Pair(ABC):
    """A speaker, who counts, straight at the server, and a listener behind a proxy.

    Args:
        server: a running server.
        proxy: the listener's network.
        number: tells the users from those of other pairs.

    Attributes:
        heard: the numbers that the listener heard, in order; None where it was told that some may be missing.
        acknowledged: the numbers that the server has promised to the speaker.
        losses: how often the listener told that its connection was lost.
        backs: how often it told that it has one.
        over: why its session is over, if it told that.
        wrongs: what must not happen, but did.
    """

    def __init__(self, server: BlockingTestServer, proxy: FaultProxy, number: int) -> None:
        self._busy = True
        self._tried = 0
        self.server = server
        self.proxy = proxy
        self.speaker_name = f"speaker-{number}@example.com"
        self.listener_name = f"listener-{number}@example.com"
        self.heard: list[int | None] = []
        self.acknowledged: list[int] = []
        self.losses = 0
        self.backs = 0
        self.over: str | None = None
        self.asked = 0
        self.wrongs: list[str] = []

    @abstractmethod
    async def enter(self, stack: AsyncExitStack) -> None:
        """Signs both in; leaving the stack closes them."""

    @abstractmethod
    async def say(self, number: int) -> bool:
        """Says a number. Returns whether it was acknowledged."""

    @abstractmethod
    async def ask(self) -> None:
        """Has the listener ask the server something. Raises ClientError."""

    @asynccontextmanager
    async def talk(self) -> AsyncIterator[None]:
        """Both do what they do for as long as the context lasts; then the listener hears the rest."""
        async with AsyncExitStack() as stack:
            await self.enter(stack)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat(self._say), name=self.speaker_name)
                group.create_task(self._repeat(self._ask), name=self.listener_name)
                try:
                    await self.until(lambda: len(self.heard) > 0, "the listener hears the speaker")
                    yield
                finally:
                    self._busy = False
            await self.until(lambda: not self._behind(), "the listener has heard everything")
            closing = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - closing < BOUND, "closing took too long"

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits until a condition holds; fails as soon as anything is wrong."""
        await until(condition, what, lambda: self.wrongs)

    async def hears_more(self, count: int) -> None:
        """Waits until the listener has heard so many more numbers."""
        wanted = len(self.heard) + count
        await self.until(lambda: len(self.heard) >= wanted, f"the listener hears {count} more numbers")

    async def says_more(self, count: int) -> None:
        """Waits until the speaker has said so many more numbers."""
        wanted = len(self.acknowledged) + count
        await self.until(lambda: len(self.acknowledged) >= wanted, f"the speaker says {count} more numbers")

    @asynccontextmanager
    async def comes_back(self) -> AsyncIterator[None]:
        """Something happens within that costs the listener its connection; waits until it has another one."""
        backs = self.backs
        yield
        await self.until(lambda: self.backs > backs, "the listener comes back")

    def check(self) -> list[str]:
        """What is wrong in the end."""
        wrongs = list(self.wrongs)
        numbers = [number for number in self.heard if number is not None]
        if numbers != sorted(set(numbers)):
            wrongs.append(f"out of order, or doubled: {numbers}")
        before, told = numbers[0], False
        for number in [*self.heard, self._tried + 1]:
            if number is None:
                told = True
                continue
            missing = [each for each in self.acknowledged if before < each < number]
            if missing and not told:
                wrongs.append(f"{missing} are missing after {before}, and nobody said so")
            before, told = number, False
        if self.over is not None:
            wrongs.append(f"the session is over: {self.over}")
        if self.asked == 0:
            wrongs.append("the listener's questions were never answered")
        return wrongs

    def _behind(self) -> bool:
        last = next((each for each in reversed(self.heard) if each is not None), 0)
        return self.acknowledged[-1] > last and self.heard[-1] is not None

    async def _repeat(self, act: Callable[[], Awaitable[None]]) -> None:
        while self._busy:
            try:
                async with asyncio.timeout(BOUND):
                    await act()
            except TimeoutError:
                self.wrongs.append(f"{act.__name__} hangs")
            await asyncio.sleep(PACE)

    async def _say(self) -> None:
        self._tried += 1
        if await self.say(self._tried):
            self.acknowledged.append(self._tried)

    async def _ask(self) -> None:
        try:
            await self.ask()
            self.asked += 1
        except ClientError:
            pass  # which errors there are is for other tests; here it must only come to an end


class KittyPair(Pair):
    """Two ChatKitty clients; numbers are in the speaker's profile."""

    async def enter(self, stack: AsyncExitStack) -> None:
        self._speaker = await self._client(stack, self.server.host)
        self._listener = listener = await self._client(stack, self.proxy.host)
        listener.on_user_updated(self._heard)
        listener.on_current_user_online(self._online)
        listener.on_current_user_offline(self._offline)
        listener.on_resumed(self._resumed)
        listener.on_session_ended(self._ended)
        for client, name in ((self._speaker, self.speaker_name), (listener, self.listener_name)):
            (await client.start_session(name)).unwrap()

    async def say(self, number: int) -> bool:
        result = await self._speaker.update_current_user(lambda user: user.replace(properties={"counter": number}))
        return result.succeeded

    async def ask(self) -> None:
        (await self._listener.list_users_count()).unwrap()

    async def _client(self, stack: AsyncExitStack, host: str) -> ChatKitty:
        return await stack.enter_async_context(
            ChatKitty(
                self.server.api_key,
                host=host,
                is_secure=False,
                transport=await stack.enter_async_context(transport()),
                reconnect=POLICY,
                timeout=PATIENCE,
            )
        )

    def _heard(self, event: UserUpdated) -> None:
        counter = event.user.properties.get("counter")
        if event.user.name == self.speaker_name and isinstance(counter, int):
            self.heard.append(counter)

    def _online(self, event: CurrentUserOnline) -> None:
        self.backs += 1

    def _offline(self, event: CurrentUserOffline) -> None:
        self.losses += 1

    def _resumed(self, event: Resumed) -> None:
        if not event.complete:
            self.heard.append(None)

    def _ended(self, event: SessionEnded) -> None:
        self.over = str(event.error)


class KandyPair(Pair):
    """Two Kandy clients; numbers are messages."""

    product: kandy.Product = "link"

    async def enter(self, stack: AsyncExitStack) -> None:
        for name in (self.speaker_name, self.listener_name):
            await asyncio.to_thread(self.server.create_user, name, PASSWORD)
        speaker = await self._client(stack, self.server.port)
        self._listener = listener = await self._client(stack, self.proxy.port)
        listener.on("messages:change", self._heard)
        listener.on("ws:change", self._connection)
        listener.on("subscription:change", self._changed)
        listener.on("auth:change", self._changed)
        await self._sign_in(speaker, self.speaker_name)
        await self._sign_in(listener, self.listener_name)
        self._conversation = speaker.conversation.create(self.listener_name)

    async def say(self, number: int) -> bool:
        try:
            await self._conversation.send(str(number))
        except ClientError:
            return False
        return True

    async def ask(self) -> None:
        await self._listener.presence.fetch(self.speaker_name)

    async def _sign_in(self, client: kandy.Client, name: str) -> None:
        client.set_credentials(username=name, password=PASSWORD)
        await client.services.subscribe(["Presence", "IM"])

    async def _client(self, stack: AsyncExitStack, port: int) -> kandy.Client:
        place = {"server": "127.0.0.1", "base": "127.0.0.1", "port": port}
        config = {
            "authentication": {
                ("server" if self.product == "link" else "subscription"): {**place, "protocol": "http"},
                "websocket": {**place, "protocol": "ws"},
            }
        }
        shared = await stack.enter_async_context(transport())
        made = kandy.create(config, product=self.product, transport=shared, reconnect=POLICY)
        return await stack.enter_async_context(made)

    def _heard(self, event: kandy.MessagesChange) -> None:
        if event.destination == self.speaker_name and event.message is not None:
            self.heard.append(int(event.message.text))

    def _connection(self, event: kandy.WsChange) -> None:
        if event.connected:
            self.backs += 1
        else:
            self.losses += 1

    def _changed(self, event: kandy.SubscriptionChange | kandy.AuthChange) -> None:
        if event.reason is not None:
            self.heard.append(None)
            self.over = event.reason


class KandyUcPair(KandyPair):
    """The same with clients of UC."""

    product = "uc"

    async def _sign_in(self, client: kandy.Client, name: str) -> None:
        await client.connect(username=name, password=PASSWORD)
