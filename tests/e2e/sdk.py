"""One client of a published JavaScript SDK, and what its observers told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal, Protocol, TypeVar

import msgspec
from tests.e2e.values import RUNTIMES, Event, Fetched, Heard, Outcome, Runtime, SocketChange, User

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds to wait for what should happen soon; an SDK takes 5 of them to come back after a loss."""

RECONNECT = 6.5
"""Seconds after which an SDK that means to reconnect has: its delay is 5 (protocol notes, section 2.7)."""


class Port(Protocol):
    """The way to the driver process."""

    async def request(self, client: str, op: str, **fields: object) -> object:
        """Sends a request and waits for the answer. Raises Thrown."""


class Client:
    """One SDK client in its own Node thread or browser page.

    Args:
        port: the way to the driver.
        name: the driver's name of the client.
        runtime: where and what it is.
    """

    def __init__(self, port: Port, name: str, runtime: Runtime) -> None:
        self._port = port
        self._name = name
        self._changed = asyncio.Event()
        self.runtime = runtime
        self.events: list[Event] = []

    def __repr__(self) -> str:
        return f"<{self._name} {self.runtime}>"

    def report(self, event: Event) -> None:
        """Takes what the SDK reported."""
        self.events.append(event)
        self._changed.set()

    async def call(self, command: str, *args: object, timeout: float = PATIENCE) -> object:
        """Runs a command of ``client.mjs``.

        Raises:
            Thrown: the SDK threw.
            TimeoutError: the SDK's promise is still pending.
        """
        async with asyncio.timeout(timeout):
            return await self._port.request(self._name, "call", command=command, args=args)

    async def _outcome(self, command: str, *args: object, timeout: float = PATIENCE) -> Outcome:
        return msgspec.convert(await self.call(command, *args, timeout=timeout), Outcome)

    async def start(
        self, username: str, auth_params: dict[str, object] | None = None, timeout: float = PATIENCE
    ) -> Outcome:
        """``startSession``."""
        return await self._outcome("start", _request(username, auth_params), timeout=timeout)

    async def connect(self, username: str, auth_params: dict[str, object] | None = None) -> Outcome:
        """``connectApi`` of core 2.x; from then on this client is the connection's."""
        return await self._outcome("connect", _request(username, auth_params))

    async def sign_in(self, username: str, auth_params: dict[str, object] | None = None) -> User:
        """Starts a session that must succeed, and waits until all its topics are subscribed.

        The SDKs resolve ``startSession`` before that; the answer to a request made after it comes after it.
        """
        outcome = await self.start(username, auth_params)
        assert outcome.succeeded, f"{self}: {outcome}"
        await self.me()
        assert outcome.user is not None
        return outcome.user

    async def end(self) -> None:
        """``endSession``."""
        await self.call("end")

    async def me(self) -> User:
        """``retrieveCurrentUser``, which must succeed."""
        outcome = await self._outcome("me")
        assert outcome.user is not None, f"{self}: {outcome}"
        return outcome.user

    async def update(self, **fields: object) -> Outcome:
        """``updateCurrentUser`` with these members replaced."""
        return await self._outcome("update", fields)

    async def list_users(self, **filters: object) -> Outcome:
        """The first page of ``listUsers``."""
        return await self._outcome("list", filters or None)

    async def turn(self, direction: Literal["next", "prev"]) -> Outcome:
        """The next or previous page of the list shown last."""
        return await self._outcome(direction)

    async def count_users(self, **filters: object) -> int:
        """``listUsersCount``, which must succeed."""
        outcome = await self._outcome("count", filters or None)
        assert outcome.count is not None, f"{self}: {outcome}"
        return outcome.count

    async def retrieve_user(self, user_id: int) -> User:
        """``retrieveUser``, which must succeed."""
        outcome = await self._outcome("user", user_id)
        assert outcome.user is not None, f"{self}: {outcome}"
        return outcome.user

    async def contact(self, name: str) -> User:
        """The one user of ``listUsers`` with this username."""
        outcome = await self.list_users(name=name)
        assert outcome.users is not None, f"{self}: {outcome}"
        (user,) = outcome.users
        return user

    async def command(self, command: str, *args: object) -> Outcome:
        """Any other command that gives a result object."""
        return await self._outcome(command, *args)

    async def fetch(self, url: str) -> Fetched:
        """``fetch`` as the application itself would, from its own origin."""
        return msgspec.convert(await self.call("fetch", url), Fetched)

    async def reload(self) -> None:
        """A reload of the page: the client is gone without a word, and a new one there."""
        await self._port.request(self._name, "reload")

    async def kill(self) -> None:
        """The page or process is gone without a word."""
        await self._port.request(self._name, "kill")

    def values(self, kind: str, shape: type[T], since: int = 0) -> Iterator[T]:
        """The arguments of an observer's calls from the event numbered ``since`` on, in order."""
        return (msgspec.convert(event.value, shape) for event in self.events[since:] if event.kind == kind)

    def selves(self, since: int = 0) -> list[User | None]:
        """Calls of ``onCurrentUserChanged``, in order."""
        told = [event.value for event in self.events[since:] if event.kind == "self"]
        return [None if value is None else msgspec.convert(value, User) for value in told]

    def sockets(self, since: int = 0) -> list[str]:
        """What became of this client's WebSockets, in order."""
        return [change.state for change in self.values("socket", SocketChange, since)]

    def close_codes(self) -> list[int]:
        """The close codes of this client's WebSockets that are closed, in order."""
        return [change.code for change in self.values("socket", SocketChange) if change.code is not None]

    def connectivity(self, since: int = 0) -> list[str]:
        """Calls of the online and offline observers, in order."""
        return [event.kind for event in self.events[since:] if event.kind in ("online", "offline")]

    def presence(self, *names: str, since: int = 0) -> list[tuple[str, bool]]:
        """Calls of ``onUserPresenceChanged`` about these users, in order: (username, online)."""
        users = self.values("presence", User, since)
        return [(user.name, user.presence.online) for user in users if user.name in names]

    def profiles(self, *names: str, since: int = 0) -> list[tuple[str, str]]:
        """Calls of ``onUserUpdated`` about these users, in order: (username, display name)."""
        users = self.values("contact", User, since)
        return [(user.name, user.display_name) for user in users if user.name in names]

    def heard(self, *names: str, since: int = 0) -> Heard:
        """Calls of both observers above, in order."""
        told: Heard = []
        for event in self.events[since:]:
            if event.kind in ("presence", "contact"):
                user = msgspec.convert(event.value, User)
                detail = user.presence.online if event.kind == "presence" else user.display_name
                if user.name in names:
                    told.append((event.kind, user.name, detail))
        return told

    async def until(self, condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        """Waits until a condition on the events holds."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self} waited in vain for {what}; it saw {self.events}") from None

    async def hears(
        self, told: Heard, *names: str, since: int = 0, repeats: Heard | None = None, timeout: float = PATIENCE
    ) -> None:
        """Waits until the observers tell just this about these users, as far as the SDK has such observers.

        Args:
            told: what they are to tell, in order.
            names: usernames.
            since: number of the event from which on.
            repeats: what may have been told before and may come once more first, from any point of it on.
            timeout: seconds to wait.
        """
        expected, before = self._audible(told), self._audible(repeats or [])
        allowed = [before[start:] + expected for start in range(len(before) + 1)]
        size = len(expected)

        def complete() -> bool:
            heard = self.heard(*names, since=since)
            return heard in allowed or len(heard) > size + len(before)

        await self.until(complete, f"{expected}", timeout=timeout)
        heard = self.heard(*names, since=since)
        assert heard in allowed, f"{self} heard {heard}, not {expected}"

    def _audible(self, told: Heard) -> Heard:
        return [entry for entry in told if self.runtime.generation == 3 or entry[0] == "presence"]

    async def lost(self) -> None:
        """Waits until the latest WebSocket of the SDK is closed."""
        await self.until(lambda: self.sockets()[-1] == "closed", "the end of its socket")

    async def quiet(self, kind: str, seconds: float) -> None:
        """Asserts that nothing of a kind is reported for a while."""
        before = self._count(kind)
        try:
            async with asyncio.timeout(seconds):
                while self._count(kind) == before:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return
        raise AssertionError(f"{self} should have heard no {kind}; it saw {self.events}")

    def _count(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.events)


async def everywhere(scenario: Callable[[Runtime], Awaitable[None]]) -> None:
    """Plays a scenario that mostly waits in all runtimes at once; the errors name those that failed."""

    async def play(runtime: Runtime) -> None:
        try:
            await scenario(runtime)
        except Exception as error:
            error.add_note(f"in {runtime}")
            raise

    async with asyncio.TaskGroup() as group:
        for runtime in RUNTIMES:
            group.create_task(play(runtime))


def _request(username: str, auth_params: dict[str, object] | None) -> dict[str, object]:
    request: dict[str, object] = {"username": username}
    if auth_params is not None:
        request["authParams"] = auth_params
    return request
