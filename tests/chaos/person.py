"""A user who keeps a session through every crash of the server, and remembers what was promised and what was seen."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque

from tests.chaos.stomp_client import Connection, Frame, Lost, Refused

TOPICS = ("self", "channels", "messages", "notifications", "contacts", "participants", "users", "reactions")
RECONNECT_EVERY = 0.05
HISTORY = 3000
"""Frames of which a failure tells."""
ACTION = "/application/v1/user.update"


class Person:
    """One user with one session.

    Args:
        url: of the WebSocket.
        name: the username.
        seed: of the person's own choices.

    Attributes:
        acknowledged: the counters whose update was acknowledged by a RECEIPT and by the event that answers it.
        tried: the last counter that was sent.
        own: the counters that the person's own events told, in the order in which they came.
        others: username → the counters that events about that user told.
        presence: username → (when, online) as events told.
        resumes: how often the client was told that its session was resumed.
        duplicates: events that came again under the message-id of the first time.
        wrongs: what must not happen, but did.
        ready: set while the session is up.
        idle: set while it is up and nothing is under way.
        refused: how often the server said that it cannot now, which is wrong unless ``patient``.
        patient: whether the server may say so.
        busy: whether to go on updating; may be changed at any time.
    """

    def __init__(self, url: str, name: str, seed: int) -> None:
        self._url = url
        self._random = random.Random(seed)
        self._session: str | None = None
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._message_ids: set[str] = set()
        self._history: deque[str] = deque(maxlen=HISTORY)
        self._began = time.monotonic()
        self.name = name
        self.user_id = 0
        self.tried = 0
        self.acknowledged: list[int] = []
        self.own: list[int] = []
        self.others: dict[str, list[int]] = {}
        self.presence: dict[str, list[tuple[float, bool]]] = {}
        self.resumes = 0
        self.duplicates = 0
        self.wrongs: list[str] = []
        self.ready = asyncio.Event()
        self.idle = asyncio.Event()
        self.refused = 0
        self.patient = False
        self._stopped = False
        self.busy = True

    # --- what the test does -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connects, and comes back whenever the connection breaks, until ``stop``."""
        self._stopped = False
        self._task = asyncio.create_task(self._live(), name=self.name)

    async def stop(self) -> None:
        """Goes away without a word and does not come back."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
            # A cancellation is lost on 3.11 where what was waited for comes in the same moment.
            if outcome is not None and not isinstance(outcome, asyncio.CancelledError):
                self._wrong(f"the client ended by itself: {outcome!r}")

    async def relay(self, destination: str, **parameters: str) -> object:
        """Asks a relay on the connection of now."""
        await self.ready.wait()
        assert self._connection is not None
        return await self._connection.relay(destination, **parameters)

    def story(self) -> str:
        """The last frames and turns, for a failure's message."""
        return "\n".join([f"--- {self.name}", *self.wrongs, *self._history])

    # --- life -------------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while not self._stopped:
            try:
                await self._one_connection()
            except Lost as lost:
                self._note(f"lost: {lost}")
            except Refused as refused:
                self.refused += 1
                self._note(f"refused: {refused}")
                if not self.patient:
                    self._wrong(f"refused: {refused}")
            except TimeoutError:
                self._wrong("a request was not answered")
            self.ready.clear()
            self.idle.clear()
            await asyncio.sleep(RECONNECT_EVERY)

    async def _one_connection(self) -> None:
        headers = {"StompX-User": self.name, "StompX-User-Agent": "ChatKitty-JS-Core/1.11.0"}
        if self._session is not None:
            headers["StompX-Auth-Session-ID"] = self._session
        async with Connection(self._url, headers, self._heard, self._event) as connection:
            self._connection = connection
            if self._session is None:
                await self._begin(connection)
            else:
                await self._resume(connection)
            self._session = connection.connected.headers["session"]
            self.ready.set()
            while self.busy and not self._stopped:
                await self._update(connection)
                await asyncio.sleep(self._random.uniform(0, 0.04))
            if self._stopped:
                return
            self.idle.set()
            await connection.gone.wait()

    async def _begin(self, connection: Connection) -> None:
        await self._fetch_self(connection)
        await connection.subscribe("errors", "/user/queue/v1/errors", receipt=False)
        for kind in ("write", "read"):
            await connection.relay(f"/application/v1/user.{kind}_file_access_grant.relay")
        await self._subscribe(connection)

    async def _resume(self, connection: Connection) -> None:
        recovered = connection.connected.headers.get("recovered")
        if recovered == "complete":
            self.resumes += 1
        else:
            self._wrong(f"the session was not resumed whole: {connection.connected.headers}")
        await connection.subscribe("errors", "/user/queue/v1/errors", receipt=False)
        await self._subscribe(connection)
        await self._fetch_self(connection)

    async def _fetch_self(self, connection: Connection) -> None:
        user = await connection.relay("/application/v1/user.relay")
        assert isinstance(user, dict)
        self.user_id = user["id"]
        told = _counter(user)
        if told is not None and self.acknowledged and told < self.acknowledged[-1]:
            self._wrong(f"fetched {told} after {self.acknowledged[-1]} was acknowledged")

    async def _subscribe(self, connection: Connection) -> None:
        for topic in TOPICS:
            await connection.subscribe(f"topic-{topic}", f"/topic/v1.users.{self.user_id}.{topic}")

    async def _update(self, connection: Connection) -> None:
        self.tried += 1
        number = self.tried
        answer = await connection.act(ACTION, f"update-{number}", {"properties": {"counter": number}})
        resource = answer.json()["resource"]
        if not isinstance(resource, dict) or _counter(resource) != number:
            self._wrong(f"the answer to update {number} is {answer.body}")
        self.acknowledged.append(number)

    # --- what is heard ----------------------------------------------------------------------------------------------

    def _event(self, frame: Frame) -> None:
        message_id = frame.headers["message-id"]
        if message_id in self._message_ids:
            self.duplicates += 1
            return
        self._message_ids.add(message_id)
        event = frame.json()
        user = event["resource"]
        assert isinstance(user, dict)
        name = str(user["name"])
        if event["type"] == "contact.presence.changed":
            presence = user["presence"]
            self.presence.setdefault(name, []).append((time.monotonic(), bool(presence["online"])))
        elif event["type"] in ("contact.user.updated", "user.self.updated"):
            seen = self.own if event["type"] == "user.self.updated" else self.others.setdefault(name, [])
            counter = _counter(user)
            if counter is None and not seen:
                pass  # somebody who does not count
            elif counter is None:
                self._wrong(f"an event without its counter: {frame.body}")
            elif seen and counter <= seen[-1]:
                self._wrong(f"{name}'s {counter} came after {seen[-1]} as {message_id}")
            else:
                seen.append(counter)

    def _heard(self, direction: str, frame: Frame) -> None:
        if frame.command == "ACK":
            return
        names = ("id", "destination", "receipt", "receipt-id", "message-id", "session", "recovered", "subscription")
        headers = " ".join(f"{name}={frame.headers[name]}" for name in names if name in frame.headers)
        body = f" {frame.body[-90:]}" if frame.body else ""
        self._note(f"{direction} {frame.command} {headers}{body}")
        if frame.command == "ERROR" and not (self.patient and "ServiceUnavailableError" in frame.body):
            self._wrong(f"ERROR {frame.body}")

    def _note(self, text: str) -> None:
        self._history.append(f"{time.monotonic() - self._began:9.3f} {text}")

    def _wrong(self, text: str) -> None:
        self._note(f"WRONG {text}")
        self.wrongs.append(text)


def _counter(user: dict[str, object]) -> int | None:
    properties = user["properties"]
    assert isinstance(properties, dict)
    value = properties.get("counter")
    return value if isinstance(value, int) else None
