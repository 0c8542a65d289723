"""The load generator: sessions that speak the exact bootstrap of real clients, with next to no parsing."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import cast

from offhook.bench import wire

TIMEOUT = 60.0
"""Seconds after which a measurement that does not end has failed."""


class LoadFailed(Exception):
    """The server did not do what the measurement needs."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect.

    Attributes:
        port: of the server on 127.0.0.1.
        api_key: of the application.
        tls: how to trust the server, if it speaks TLS.
    """

    port: int
    api_key: str
    tls: ssl.SSLContext | None = None

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"


class Session(asyncio.Protocol):
    """One client.

    Args:
        target: where.
        user: who; None stops after the WebSocket handshake.
        done: called once the session is started, or failed.
        password: what it proves itself with.
        resumes: the session with which it comes back, as ``token`` of an earlier one; None starts a new one.

    Attributes:
        user_id: the id of its user, once started.
        token: by which its session can be resumed, once started.
        recovered: whether the server said that all it missed will come; None if it said nothing.
        events: how many events it got.
        acks: whether it acknowledges them.
        listener: called with each STOMP frame that comes after the start, and with events that come before its end.
        on_lost: called when the connection is lost, unless by ``abort``.
        error: why it is over, if it is.
    """

    __slots__ = (
        "_buffer", "_done", "_receipts", "_resumes", "_step", "_target", "acks", "error", "events", "listener",
        "on_lost", "password", "recovered", "token", "transport", "user", "user_id",
    )  # fmt: skip

    def __init__(
        self,
        target: Target,
        user: str | None,
        done: Callable[[Session], None],
        password: str | None = None,
        resumes: str | None = None,
    ) -> None:
        self._target = target
        self._done: Callable[[Session], None] | None = done
        self._buffer = b""
        self._step = 0
        self._receipts = 0
        self._resumes = resumes
        self.transport: asyncio.Transport | None = None
        self.user = user
        self.password = password
        self.user_id = 0
        self.token: str | None = None
        self.recovered: bool | None = None
        self.events = 0
        self.acks = False
        self.listener: Callable[[bytes], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self.error: str | None = None

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(wire.upgrade(self._target.host, self._target.api_key, os.urandom(16)))

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if self._step == 0:
            data = self._upgraded(data)
        frames, self._buffer = wire.split_frames(data)
        for first, payload in frames:
            if first == wire.TEXT:
                if self._step == 6:
                    self._take(payload)
                elif payload != b"\n":
                    self._advance(payload)
            elif first == wire.PING:
                self.write(wire.client_frame(payload, wire.PONG))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost: {exc}")
        if self.on_lost is not None:
            self.on_lost()

    # --- the bootstrap ----------------------------------------------------------------------------------------------

    def _upgraded(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            self._buffer = data
            return b""
        if not head.startswith(b"HTTP/1.1 101"):
            self._fail(head.decode(errors="replace"))
        elif self.user is None:
            self._finish()
        else:
            self._step = 1
            self.write(wire.connect(self.user, self.password, self._resumes))
        return rest

    def _advance(self, frame: bytes) -> None:
        if self._step == 5:
            if frame.startswith(b"RECEIPT"):
                self._receipts += 1
            else:
                self._take(frame)
            if self._receipts == len(wire.USER_TOPICS):
                self._finish()
            return
        if not frame.startswith(b"CONNECTED" if self._step == 1 else b"MESSAGE"):
            self._fail(frame.decode(errors="replace"))
            return
        if self._step == 1:
            token, recovered = wire.header(frame, b"session"), wire.header(frame, b"recovered")
            self.token = None if token is None else token.decode()
            self.recovered = None if recovered is None else recovered == b"complete"
        elif self._step == 2:
            start = frame.index(b'"id":') + 5
            self.user_id = int(frame[start : frame.index(b",", start)])
        if self._step < 4:
            self.write(wire.GREETING[self._step - 1])
        else:
            self.write(*wire.topics(self.user_id))
        self._step += 1

    def _finish(self) -> None:
        self._step = 6
        done, self._done = self._done, None
        if done is not None:
            done(self)

    def _fail(self, text: str) -> None:
        if self.error is None:
            self.error = text
        if self._done is not None:
            self._finish()

    # --- afterwards -------------------------------------------------------------------------------------------------

    def write(self, *frames: bytes) -> None:
        """Sends frames, each as a WebSocket message of its own."""
        if self.transport is not None:
            self.transport.write(b"".join(frames))

    def _take(self, frame: bytes) -> None:
        if self.listener is not None:
            self.listener(frame)
        if b'"type":"contact.' in frame:
            self.events += 1
            if self.acks and (ack := wire.acknowledge(frame)) is not None:
                self.write(ack)

    def abort(self) -> None:
        """Goes away without a word."""
        self.listener = self.on_lost = None
        if self.transport is not None:
            self.transport.abort()


async def open_sessions(
    target: Target,
    users: Sequence[str | None],
    concurrency: int = 50,
    password: str | None = None,
    keep: bool = True,
    resumes: Sequence[str | None] | None = None,
) -> list[Session]:
    """Starts sessions, some at a time, and keeps them.

    Args:
        target: where.
        users: one for each session; None for a bare WebSocket connection.
        concurrency: how many are being started at once.
        password: what they prove themselves with.
        keep: keep their connections; otherwise each goes away once it is started.
        resumes: the session with which each comes back, see ``Session``.

    Raises:
        LoadFailed: one of them was refused, or they take too long.
    """
    sessions: list[Session] = []
    queue = zip(users, resumes or [None] * len(users), strict=True)
    loop = asyncio.get_running_loop()

    async def worker() -> None:
        for user, token in queue:
            finished: asyncio.Future[Session] = loop.create_future()
            session = Session(target, user, finished.set_result, password, token)
            name = "localhost" if target.tls is not None else None
            await loop.create_connection(
                lambda made=session: made,
                "127.0.0.1",
                target.port,
                ssl=target.tls,
                server_hostname=name,
            )
            await finished
            if session.error is not None:
                raise LoadFailed(session.error)
            if keep:
                sessions.append(session)
            else:
                session.abort()

    await crowd(worker, concurrency, TIMEOUT, lambda: f"started only {len(sessions)} sessions")
    return sessions


async def crowd(
    worker: Callable[[], Coroutine[object, object, None]], count: int, seconds: float, so_far: Callable[[], str]
) -> None:
    """Runs as many workers at once, to their end.

    Raises:
        LoadFailed: they take longer than ``seconds``; says what they did ``so_far``.
    """
    workers = [asyncio.create_task(worker()) for _ in range(count)]
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*workers)
    except TimeoutError:
        raise LoadFailed(f"{so_far()} in {seconds:.0f} s") from None
    finally:
        for task in workers:
            task.cancel()


async def close_sessions(sessions: Sequence[Session]) -> None:
    """Lets the sessions' clients go away, a few at a time."""
    for number, session in enumerate(sessions):
        session.abort()
        if number % 200 == 199:
            await asyncio.sleep(0)


async def until(condition: Callable[[], bool], what: str, seconds: float = TIMEOUT, step: float = 0.001) -> None:
    """Waits until a condition holds.

    Raises:
        LoadFailed: it does not within that many ``seconds``.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise LoadFailed(f"waited {seconds:.0f} s in vain for {what}")
        await asyncio.sleep(step)
