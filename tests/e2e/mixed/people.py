"""Users of whichever SDK, seen alike: signing in and out, others' presence, messages, losses and endings."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.e2e.sdk import PATIENCE, RECONNECT, Client
from tests.e2e.values import Runtime
from tests.kandy.stage import KandyStage

from offhook import kandy
from offhook.chatkitty import ChatKitty, Reconnect, SessionEnded, Transport, UserPresenceChanged

SOON = Reconnect(initial=0.2, factor=2.0, maximum=1.0)
SERVICES = ("call", "Presence", "IM")


class Refused(Exception):
    """Signing in failed.

    Attributes:
        code: as the SDK names it.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(slots=True)
class Told:
    """What a user's SDK has told.

    Attributes:
        presence: of others: name → whether they are there, each change in order.
        texts: messages that came: (sender, text) in order.
        over: why the session ended by itself, each time.
    """

    presence: dict[str, list[bool]] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)
    over: list[str] = field(default_factory=list)


class Person(abc.ABC):
    """One user with one client.

    Args:
        kind: of the client.
        name: of the user.

    Attributes:
        denied: the code with which a wrong password is refused.
        ended: the reason that the SDK gives if the server ends the session.
    """

    denied = "AccessDeniedError"
    ended = "AccessDeniedError"

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.told = Told()
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    @abc.abstractmethod
    async def sign_in(self, password: str) -> None:
        """Starts a session. Raises Refused."""

    @abc.abstractmethod
    async def sign_out(self) -> None:
        """Ends it."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Frees all that the client has."""

    @property
    @abc.abstractmethod
    def online(self) -> bool:
        """Whether the client has a session with a connection now."""

    async def watch(self, *names: str) -> None:
        """Asks to be told of users' presence, where that must be asked for: elsewhere everybody is told of all."""
        return

    def presence(self, name: str) -> list[bool]:
        """The changes of a user's presence, in order."""
        return self.told.presence.get(name, [])

    async def until(self, condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        """Waits until a condition holds that events can make true."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self} waited in vain for {what}; it was told {self.told}") from None

    async def sees(self, name: str, *states: bool) -> None:
        """Waits until the changes of a user's presence are just these."""
        wanted = list(states)
        await self.until(lambda: len(self.presence(name)) >= len(wanted), f"{name} {wanted}")
        assert self.presence(name) == wanted, f"{self} saw {self.presence(name)} of {name}"

    async def comes_back(self, name: str) -> None:
        """Waits until a user has gone and come, as the last that was told of them."""
        await self.until(lambda: self.presence(name)[-2:] == [False, True], f"the return of {name}")

    async def lost(self) -> None:
        """Waits until the client knows that it has no connection."""
        await self.until(lambda: not self.online, "its loss")

    async def back(self) -> None:
        """Waits until the client has a connection."""
        await self.until(lambda: self.online, "its return")

    async def gone(self) -> None:
        """Waits until the client knows that its session was ended, and will not come back."""
        await self.until(lambda: bool(self.told.over), "its end")
        assert self.told.over == [self.ended]
        assert not self.online

    def _tell(self) -> None:
        self._changed.set()


class PythonChatKitty(Person):
    """The Python client of ChatKitty's protocol."""

    def __init__(self, name: str, host: str, api_key: str) -> None:
        super().__init__("python-chatkitty", name)
        self._transport = Transport(trust_env=False)
        self.client = ChatKitty(api_key, host=host, is_secure=False, transport=self._transport, reconnect=SOON)
        self.client.on_user_presence_changed(self._presence)
        self.client.on_current_user_online(lambda _: self._tell())
        self.client.on_current_user_offline(lambda _: self._tell())
        self.client.on_session_ended(self._over)

    async def sign_in(self, password: str) -> None:
        result = await self.client.start_session(self.name, {"password": password})
        if not result.succeeded:
            raise Refused(result.error.error)

    async def sign_out(self) -> None:
        await self.client.end_session()

    async def close(self) -> None:
        await self.client.close()
        await self._transport.close()

    @property
    def online(self) -> bool:
        return self.client.is_online

    def _presence(self, event: UserPresenceChanged) -> None:
        self.told.presence.setdefault(event.user.name, []).append(event.user.presence.online)
        self._tell()

    def _over(self, event: SessionEnded) -> None:
        self.told.over.append(event.error.error)
        self._tell()


class PythonKandy(Person):
    """The Python client of Kandy's protocol, as Link or as UC."""

    ended = "GONE"

    def __init__(self, name: str, host: str, product: kandy.Product) -> None:
        super().__init__(f"python-{product}", name)
        address, _, port = host.rpartition(":")
        rest = {"protocol": "http", "server": address, "port": int(port)}
        socket = {"protocol": "ws", "server": address, "port": int(port)}
        config: dict[str, object]
        if product == "link":
            self.denied = "authentication:4"
            server = {"protocol": "http", "base": address, "port": int(port)}
            config = {"authentication": {"server": server}, "subscription": {"websocket": socket}}
        else:
            self.denied = "authentication:9"
            config = {"authentication": {"subscription": {**rest, "service": list(SERVICES)}, "websocket": socket}}
        self._link = product == "link"
        self._transport = Transport(trust_env=False)
        self._first: dict[str, bool] = {}
        self._connected = False
        self.client = kandy.create(config, product=product, transport=self._transport, reconnect=SOON)
        self.client.on("presence:change", self._presence)
        self.client.on("messages:change", self._message)
        self.client.on("ws:change", self._socket)
        if self._link:
            self.client.on("subscription:change", self._ended)
        else:
            self.client.on("auth:change", self._ended)

    async def sign_in(self, password: str) -> None:
        try:
            if self._link:
                self.client.set_credentials(username=self.name, password=password)
                await self.client.services.subscribe(list(SERVICES))
            else:
                await self.client.connect(username=self.name, password=password)
        except kandy.KandyError as error:
            raise Refused(error.code) from None

    async def sign_in_with_token(self, token: str) -> None:
        """Starts a session with an access token, which must succeed."""
        if self._link:
            self.client.set_credentials(username=self.name, access_token=token)
            await self.client.services.subscribe(list(SERVICES))
        else:
            await self.client.connect(username=self.name, access_token=token)

    async def sign_out(self) -> None:
        if self._link:
            await self.client.services.unsubscribe()
        else:
            await self.client.disconnect()

    async def close(self) -> None:
        await self.client.destroy()
        await self._transport.close()

    @property
    def online(self) -> bool:
        return self._connected

    async def watch(self, *names: str) -> None:
        """The server tells at once how they are, which is no change yet."""
        await self.client.presence.subscribe(names)
        await self.until(lambda: all(name in self._first for name in names), f"the presence of {names}")

    async def say(self, to: str, text: str) -> None:
        """Sends a message."""
        await self.client.conversation.create(to).send(text)

    async def hears(self, *texts: tuple[str, str]) -> None:
        """Waits until the messages that came are just these: (sender, text)."""
        await self.until(lambda: len(self.told.texts) >= len(texts), f"{texts}")
        assert self.told.texts == list(texts)

    def _presence(self, event: kandy.PresenceChange) -> None:
        there = event.status == "open"
        if event.user not in self._first:
            self._first[event.user] = there
        elif there != (self.presence(event.user) or [self._first[event.user]])[-1]:
            self.told.presence.setdefault(event.user, []).append(there)
        self._tell()

    def _message(self, event: kandy.MessagesChange) -> None:
        if event.message is not None and event.message.incoming:
            self.told.texts.append((event.message.sender, event.message.text))
        self._tell()

    def _socket(self, event: kandy.WsChange) -> None:
        self._connected = event.connected
        self._tell()

    def _ended(self, event: kandy.SubscriptionChange | kandy.AuthChange) -> None:
        if event.reason is not None:
            self.told.over.append(event.reason)
        self._tell()


class JavaScript(Person):
    """A published client in Node."""

    def __init__(self, name: str, client: Client) -> None:
        super().__init__(str(client.runtime), name)
        self.client = client

    async def sign_in(self, password: str) -> None:
        outcome = await self.client.start(self.name, {"password": password})
        if outcome.error is not None:
            raise Refused(outcome.error.code or outcome.error.message)
        # It resolves before its topics are subscribed; what it is asked after that is answered after that.
        await self.client.me()

    async def sign_out(self) -> None:
        await self.client.end()

    async def close(self) -> None:
        """The stage kills it."""

    @property
    def online(self) -> bool:
        return self.client.connectivity()[-1:] == ["online"]

    def presence(self, name: str) -> list[bool]:
        return [online for _, online in self.client.presence(name)]

    async def until(self, condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        await self.client.until(condition, what, timeout)

    async def gone(self) -> None:
        """It does not say so, but makes no further attempt."""
        await self.client.lost()
        await self.client.quiet("socket", RECONNECT)
        assert not self.online


KINDS = ("python-chatkitty", "python-link", "python-uc", "node-core-1.11.0", "node-core-2.106.2")
"""The clients that the scenarios are played with."""


class Crowd:
    """Makes people.

    Args:
        stage: where.
        api_key: of the application ``default``.
        password: of all users.
    """

    def __init__(self, stage: KandyStage, api_key: str, password: str) -> None:
        self._stage = stage
        self._api_key = api_key
        self._people: list[Person] = []
        self.password = password

    async def person(self, kind: str, *, host: str | None = None, name: str | None = None) -> Person:
        """A client of a kind, not signed in.

        Args:
            kind: one of KINDS.
            host: where it connects; the server's plain listener unless given.
            name: of a user that is there; a new one unless given.
        """
        name = name or await self._stage.user(kind.replace(".", "-"))
        host = host or self._stage.server.http_host
        person: Person
        match kind:
            case "python-chatkitty":
                person = PythonChatKitty(name, host, self._api_key)
            case "python-link":
                person = PythonKandy(name, host, "link")
            case "python-uc":
                person = PythonKandy(name, host, "uc")
            case _:
                runtime = Runtime("node", kind.removeprefix("node-"))
                person = JavaScript(name, await self._stage.client(runtime, host=host, api_key=self._api_key))
        self._people.append(person)
        return person

    async def someone(self, kind: str, *, host: str | None = None) -> Person:
        """A new user of a kind of client, signed in."""
        person = await self.person(kind, host=host)
        await person.sign_in(self.password)
        return person

    async def clear(self) -> None:
        """Frees everybody."""
        await asyncio.gather(*(person.close() for person in self._people))
