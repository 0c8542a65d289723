"""One session, from its start to its end, over as many connections as it takes (ChatKitty protocol notes, 2).

While it has a connection one task reads from it. When the connection is lost, that task makes a new one, resumes the
session on it, and reads on. Everything that comes is handled in one go, without awaiting in between: what was taken
from the connection is never lost to a cancellation, and only what was handled is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from offhook.client.chatkitty.deadlines import Deadlines
from offhook.client.chatkitty.errors import (
    AccessDeniedError,
    ChatKittyBadAnswer,
    ChatKittyError,
    RateLimitedError,
    as_chatkitty,
)
from offhook.client.chatkitty.events import (
    CurrentUserChanged,
    CurrentUserOffline,
    CurrentUserOnline,
    Event,
    EventName,
    Resumed,
    SessionEnded,
    event_of,
)
from offhook.client.chatkitty.link import Link
from offhook.client.chatkitty.resources import CurrentUser, read_current_user
from offhook.client.chatkitty.stompx import (
    Acknowledge,
    Answered,
    Broken,
    Confirmed,
    Heard,
    Opened,
    Outcome,
    Refused,
    StompX,
)
from offhook.client.errors import ClientError, ConnectionLost
from offhook.client.reconnect import Backoff, Reconnect
from offhook.client.tasks import Tasks, report
from offhook.client.transport import Transport

USER_RELAY = "/application/v1/user.relay"
TOPICS = ("self", "contacts", "users")
"""The user's topics that have events which this client understands, in the order in which others subscribe to them."""
GOODBYE = 5.0
"""Seconds that the server has to answer a DISCONNECT."""
COOL_OFF = 0.1
"""Seconds that are waited at least before a question is asked again, although the server asks for less."""
QUICK_GOODBYE = 2.0
"""The same when a start is given up, whose caller should not wait for long."""

Tell = Callable[[EventName, Event], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a client's sessions have in common.

    Attributes:
        url: of the WebSocket; its query holds the API key.
        user_agent: what CONNECT calls the client.
        heart_beat: milliseconds: what the client can send, and wants.
        timeout: seconds for every wait.
        reconnect: when to come back.
    """

    url: str = field(repr=False)
    user_agent: str
    heart_beat: tuple[int, int]
    timeout: float
    reconnect: Reconnect


class Stay:
    """A user's session.

    Args:
        terms: see there.
        transport: makes the connections.
        username: whose it is.
        auth_params: what proves it; sent again with every reconnect.
        tell: takes what applications are to be told.
        over: called as soon as the session is no more to be used.
    """

    def __init__(
        self,
        terms: Terms,
        transport: Transport,
        username: str,
        auth_params: Mapping[str, object] | None,
        tell: Tell,
        over: Callable[[], None],
    ) -> None:
        self._terms = terms
        self._transport = transport
        self._username = username
        self._auth_params = auth_params
        self._tell = tell
        self._over = over
        self._stompx = StompX(terms.user_agent, terms.heart_beat)
        self._tasks = Tasks()
        self._link: Link | None = None
        self._online = asyncio.Event()
        self._complete = True
        self._ending = False
        self._refused = False
        self._left = asyncio.Event()
        self._beginning = False
        self._opened: Opened | None = None
        self._receipts: set[str] = set()
        self._answers: dict[str, asyncio.Future[object]] = {}
        self.deadlines = Deadlines()
        self.user: CurrentUser | None = None
        """The user as last heard; None before the start."""

    @property
    def online(self) -> bool:
        """Whether there is a connection on which the session goes on."""
        return self._online.is_set()

    @property
    def left(self) -> bool:
        """Whether nothing of it is left."""
        return self._left.is_set()

    # --- start and end ----------------------------------------------------------------------------------------------

    async def begin(self) -> CurrentUser:
        """Connects and starts (2.4). Once it fails or is cancelled, nothing of the session is left on either side.

        Raises:
            ChatKittyError: it could not be started.
        """
        self._beginning = True
        try:
            async with self.deadlines.within(self._terms.timeout):
                link, _ = await self._connect()
                await link.send(self._stompx.subscriptions())
                user = await self._me(link)
                topics = [(key, user.topics[key]) for key in TOPICS if key in user.topics]
                await link.send([self._stompx.subscribe(key, destination) for key, destination in topics])
            # It may have been ended between the last answer and now.
            self.deadlines.check()
        except BaseException as error:
            self._ending = True
            self._over()
            try:
                await self._leave(QUICK_GOODBYE)
            finally:
                self._left.set()
            if isinstance(error, ClientError):
                raise as_chatkitty(error) from None
            raise
        finally:
            self._beginning = False
        self._online.set()
        self._know(user)
        self._tell("current_user.online", CurrentUserOnline(user))
        self._tasks.start(self._go_on(link), "ChatKitty session")
        return user

    async def end(self) -> None:
        """Ends the session on the server if there is a connection, and here in any case. Every wait ends at once."""
        if self._ending or self._beginning:
            self.deadlines.end("The session was ended")
            await self._left.wait()
            await self._tasks.close()
            return
        self._ending = True
        self._over()
        self.deadlines.end("The session was ended")
        patience = GOODBYE if self.online else QUICK_GOODBYE
        # At once: the next session may begin, and tell of itself, while this one says goodbye.
        self._gone()
        try:
            try:
                await self._tasks.close()
            finally:
                await self._leave(patience)
        finally:
            self._left.set()

    async def _leave(self, patience: float) -> None:
        """Says goodbye if the server may know of the session, and closes the connection."""
        link = self._link
        if link is None:
            return
        try:
            if not self._refused:
                with contextlib.suppress(ClientError, TimeoutError):
                    async with asyncio.timeout(patience):
                        frames, receipt = self._stompx.goodbye()
                        await link.send(frames)
                        while receipt not in self._receipts:
                            await self._take(link)
                        await link.close()
        finally:
            # Does nothing to a connection that is closed.
            await link.abort()

    def _gone(self) -> None:
        user, self.user = self.user, None
        online = self.online
        self._online.clear()
        if user is not None:
            if online:
                self._tell("current_user.offline", CurrentUserOffline(user))
            self._tell("current_user.changed", CurrentUserChanged(None))

    async def _finish(self, error: ChatKittyError) -> None:
        """The session is over, and not because the application ended it."""
        self._ending = True
        self._over()
        self.deadlines.end(error.message)
        self._gone()
        self._tell("session.ended", SessionEnded(error))
        try:
            if self._link is not None:
                await self._link.close()
        finally:
            self._left.set()

    # --- connections ------------------------------------------------------------------------------------------------

    async def _connect(self) -> tuple[Link, bool]:
        """Opens a connection and has it accepted. Returns it, and whether all that was missed will come."""
        self._opened, self._refused = None, False
        link = self._link = await Link.open(self._transport, self._terms.url, self._stompx)
        await link.send([self._stompx.connect(self._username, self._auth_params)])
        opened = await self._accepted(link)
        link.beat(opened.heart_beat)
        return link, opened.recovered

    async def _accepted(self, link: Link) -> Opened:
        while (opened := self._opened) is None:
            await self._take(link)
        return opened

    async def _me(self, link: Link) -> CurrentUser:
        name, frame = self._stompx.relay(USER_RELAY)
        answer = self._answers[name] = asyncio.get_running_loop().create_future()
        try:
            await link.send([frame])
            while not answer.done():
                await self._take(link)
        finally:
            self._forget(name)
        return read_current_user(_checked(answer.result()))

    async def _go_on(self, link: Link) -> None:
        """Reads from one connection after the other until the session is over."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(self._terms.reconnect)
        resumed_at: float | None = None
        while True:
            try:
                while True:
                    await self._take(link)
            except ClientError as error:
                cause = error
            failure = as_chatkitty(cause)
            if isinstance(failure, AccessDeniedError):
                await self._finish(failure)
                return
            self._lose(cause)
            await self._drop()
            if resumed_at is not None:
                backoff.ended(loop.time() - resumed_at)
            found = await self._come_back(failure, backoff)
            if found is None:
                return
            link, resumed_at = found, loop.time()

    def _lose(self, cause: ClientError) -> None:
        lost = cause if isinstance(cause, ConnectionLost) else ConnectionLost(reason=cause.message)
        self._online.clear()
        self._complete = True
        self._handle(self._stompx.lost(lost))
        if self.user is not None:
            self._tell("current_user.offline", CurrentUserOffline(self.user))

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.abort()

    async def _come_back(self, failure: ChatKittyError, backoff: Backoff) -> Link | None:
        """Makes connections until one works. None if the session is over."""
        while not (isinstance(failure, AccessDeniedError) or backoff.exhausted):
            await asyncio.sleep(backoff.delay(failure.cool_off))
            try:
                async with self.deadlines.within(self._terms.timeout):
                    return await self._resume()
            except ClientError as error:
                failure = as_chatkitty(error)
            await self._drop()
            backoff.failed()
        await self._finish(failure)
        return None

    async def _resume(self) -> Link:
        link, recovered = await self._connect()
        # What an earlier attempt was told to be lost stays lost, although this one goes on from there.
        self._complete = self._complete and recovered
        await link.send(self._stompx.subscriptions())
        user = await self._me(link)
        await link.send(self._stompx.repeat())
        self._online.set()
        self._know(user)
        self._tell("current_user.online", CurrentUserOnline(user))
        self._tell("session.resumed", Resumed(self._complete))
        return link

    # --- what comes -------------------------------------------------------------------------------------------------

    async def _take(self, link: Link) -> None:
        """Waits for what comes next and handles it.

        Raises:
            ConnectionLost: nothing more will come.
            ChatKittyError: the server said so, or nothing more can be understood.
        """
        acks, failure = self._handle(await link.receive())
        # A server that has closed the connection may have said why, and more, before it did: all of that is read first.
        with contextlib.suppress(ConnectionLost):
            await link.send(acks)
        if failure is not None:
            raise failure

    def _handle(self, outcomes: Sequence[Outcome]) -> tuple[list[bytes], ChatKittyError | None]:
        acks: list[bytes] = []
        for outcome in outcomes:
            match outcome:
                case Answered(request, answer):
                    waiting = self._answers.get(request)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(answer)
                case Heard():
                    if not self._ending:
                        self._hear(outcome)
                case Acknowledge(frame):
                    acks.append(frame)
                case Confirmed(receipt):
                    if self._ending:
                        self._receipts.add(receipt)
                case Opened():
                    self._opened = outcome
                case Refused(error):
                    self._refused = True
                    return acks, error
                case Broken(error):
                    return acks, error
        return acks, None

    def _hear(self, heard: Heard) -> None:
        try:
            if (heard.topic, heard.kind) == ("self", "user.self.updated"):
                self._know(read_current_user(heard.resource))
            elif (made := event_of(heard.topic, heard.kind, heard.resource)) is not None:
                self._tell(*made)
        except ChatKittyBadAnswer as error:
            report(f"An event of the type {heard.kind} cannot be read", error)

    def _know(self, user: CurrentUser) -> None:
        if user != self.user:
            self.user = user
            self._tell("current_user.changed", CurrentUserChanged(user))

    def learn(self, user: CurrentUser, before: CurrentUser | None) -> None:
        """Takes what an answer says of the user, unless something newer was heard since the question.

        Args:
            user: what it says.
            before: the user as known when it was asked.
        """
        if not self._ending and self.user is before:
            self._know(user)

    # --- requests ---------------------------------------------------------------------------------------------------

    async def ask(self, destination: str, parameters: Mapping[str, str] | None = None) -> object:
        """Asks a relay, again if the connection breaks or the server asks for patience, and returns the resource.

        Raises:
            ChatKittyError: the server's error, or no answer in time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._terms.timeout
        async with self.deadlines.within(self._terms.timeout):
            while True:
                try:
                    return await self._request(lambda: self._stompx.relay(destination, parameters))
                except RateLimitedError as error:
                    if error.cool_off is None:
                        raise
                    wait = max(error.cool_off, COOL_OFF)
                    if loop.time() + wait >= deadline:
                        raise
                    await asyncio.sleep(wait)

    async def act(self, destination: str, body: object, kinds: frozenset[str] | None = None) -> object:
        """Does something, once, and returns the resource of the event that answers it.

        Args:
            destination: the action.
            body: of the request.
            kinds: types that the event must have; None is any.

        Raises:
            ChatKittyError: the server's error; or the connection was lost or no answer came in time, and it is not
                known whether it was done.
        """
        async with self.deadlines.within(self._terms.timeout):
            return await self._request(lambda: self._stompx.action(destination, body, kinds))

    async def _request(self, make: Callable[[], tuple[str, bytes]]) -> object:
        while self._link is None or not self._online.is_set():
            await self._online.wait()
        link = self._link
        name, frame = make()
        answer = self._answers[name] = asyncio.get_running_loop().create_future()
        try:
            # If the connection is lost, the reading task settles an action, and asks a relay again.
            with contextlib.suppress(ConnectionLost):
                await link.send([frame])
            return _checked(await answer)
        finally:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._answers.pop(name, None)
        self._stompx.forget(name)


def _checked(answer: object) -> object:
    if isinstance(answer, ChatKittyError):
        raise answer
    return answer
