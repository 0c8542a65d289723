"""SockJS sessions over requests where several nodes serve: each lives at one of them, and its requests come to any.

The node that gets a client's first request claims the session by a lease, and has it. Another one, to which a request
of the same client comes, finds it by the lease and asks for what it has for the client, or hands over what the client
brought. A word that is lost on the way ends the session, and the client comes back and resumes: what it has not got
is never passed over in silence.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from offhook.errors import NotFound, Unavailable
from offhook.gateways.background import in_background
from offhook.gateways.chatkitty.sockjs_sockets import Frame, XhrSession
from offhook.ports import Broker
from offhook.protocols import sockjs
from offhook.services.questions import Questions

LEASE = 3 * 3600.0
"""Seconds for which a session's place is remembered after it was last made sure of."""
MADE_SURE_EVERY = LEASE / 3
FETCH_WAIT = 5.0
"""Seconds for which another node waits for messages, before it says that there are none yet."""
ANSWER_WITHIN = 3.0
"""Seconds that an answer may take beyond that."""
TAKEN_WITHIN = 20.0
"""Seconds within which another node takes what a client brings, which it may put off while the client is congested."""
ASKED_AGAIN_WITHIN = 30.0
"""Seconds within which the node where the client's request is asks for more, however slowly the client reads."""

_Act = Literal["fetch", "leave", "abort", "take"]


class _Request(msgspec.Struct, frozen=True):
    """What one node asks another.

    Attributes:
        key: names the session.
        receiver: names the client's request, of which there may be several questions.
        act: what is to be done.
        brought: for ``take``: what the client sent.
    """

    key: str
    receiver: str
    act: _Act
    brought: bytes = b""


class _Reply(msgspec.Struct, frozen=True):
    """What the other answers.

    Attributes:
        frame: for the client; None: there is none yet, or what was brought is taken.
        last: whether that is the session's last one.
        busy: whether another request fetches already.
    """

    frame: bytes | None = None
    last: bool = False
    busy: bool = False


_REQUEST = msgspec.json.Decoder(_Request)
_REPLY = msgspec.json.Decoder(_Reply)
_LOST = Frame(sockjs.encode_close(1006, "Connection lost"), last=True)
STILL_OPEN = Frame(sockjs.encode_close(2010, "Another connection still open"), last=True)


class Places:
    """Where sessions live.

    Args:
        broker: has the leases.
        questions: to other nodes; those of others are answered from here on.
        limits: of what clients bring.
    """

    def __init__(self, broker: Broker, questions: Questions, limits: sockjs.Limits) -> None:
        self._broker = broker
        self._questions = questions
        self._limits = limits
        self._here: dict[str, XhrSession] = {}
        self._sure: dict[str, float] = {}
        self._fetching: dict[tuple[str, str], asyncio.Task[object]] = {}
        questions.answer_with(self._answer)

    async def find(self, name: str) -> FarSession | None:
        """The session of a name at another node, if it is at one. Raises as ``Broker.lease_holder`` does."""
        key = _key(name)
        holder = await self._broker.lease_holder(_lease(key))
        if holder is None or holder == self._questions.node:
            return None
        return FarSession(self._questions, holder, key)

    async def claim(self, name: str) -> bool:
        """Says that the session of a name is to be here. Returns False if it is at another node."""
        key = _key(name)
        if not await self._broker.acquire_lease(_lease(key), self._questions.node, LEASE):
            return False
        self._sure[key] = time.monotonic()
        return True

    def settle(self, name: str, session: XhrSession) -> None:
        """The session that was claimed is here."""
        self._here[_key(name)] = session

    def make_sure(self, name: str) -> None:
        """A session that is here is in use: its place is remembered for longer."""
        self._make_sure(_key(name))

    def _make_sure(self, key: str) -> None:
        if time.monotonic() - self._sure[key] > MADE_SURE_EVERY:
            self._sure[key] = time.monotonic()
            in_background(self._claim(key))

    async def _claim(self, key: str) -> None:
        await self._broker.acquire_lease(_lease(key), self._questions.node, LEASE)

    def forget(self, name: str) -> None:
        """The session is no more, or never came to be."""
        key = _key(name)
        self._here.pop(key, None)
        if self._sure.pop(key, None) is not None:
            in_background(self._broker.release_lease(_lease(key), self._questions.node))

    async def _answer(self, body: bytes) -> bytes | None:
        request = _REQUEST.decode(body)
        session = self._here.get(request.key)
        if session is None:
            return None
        match request.act:
            case "fetch":
                self._make_sure(request.key)
                return msgspec.json.encode(await self._fetch(session, request))
            case "leave":
                fetching = self._fetching.get((request.key, request.receiver))
                if fetching is not None:
                    fetching.cancel()
                elif not session.receiving:
                    session.detach()
            case "abort":
                session.lose("another node did not get its messages")
            case "take":
                await session.received(sockjs.decode_messages(request.brought, self._limits))
        return msgspec.json.encode(_Reply())

    async def _fetch(self, session: XhrSession, request: _Request) -> _Reply:
        if not session.attach():
            return _Reply(busy=True)
        task = asyncio.current_task()
        assert task is not None
        self._fetching[request.key, request.receiver] = task
        patience = None
        try:
            frame = await session.fetch(FETCH_WAIT)
            patience = ASKED_AGAIN_WITHIN
        finally:
            del self._fetching[request.key, request.receiver]
            session.detach(patience)
        return _Reply() if frame is None else _Reply(*frame)


class FarSession:
    """A session at another node, as a request that came here sees it.

    Args:
        questions: to other nodes.
        node: where the session is.
        key: names it there.
    """

    def __init__(self, questions: Questions, node: str, key: str) -> None:
        self._questions = questions
        self._node = node
        self._key = key
        self._receiver = secrets.token_hex(8)
        self._over = False

    def attach(self) -> bool:
        """See ``sockjs.Session``. Whether another request fetches already is known only there."""
        return True

    async def fetch(self, wait: float) -> Frame | None:
        """See ``sockjs.Session``."""
        until = time.monotonic() + wait
        while True:
            try:
                reply = await self._ask("fetch", FETCH_WAIT + ANSWER_WITHIN)
            except Unavailable:
                # The answer may have had messages that are nowhere any more.
                in_background(self._tell("abort"))
                reply = None
            frame = _frame(reply)
            if frame is not None:
                self._over = frame.last
                return frame
            if time.monotonic() >= until:
                return None

    def detach(self) -> None:
        """See ``sockjs.Session``."""
        if not self._over:
            in_background(self._tell("leave"))

    async def received(self, messages: Sequence[str]) -> None:
        """See ``sockjs.Session``.

        Raises:
            NotFound: the session is no more.
            Unavailable: the other node does not answer.
        """
        if await self._ask("take", TAKEN_WITHIN, sockjs.encode_messages(messages)[1:]) is None:
            raise NotFound("There is no such SockJS session")

    async def _ask(self, act: _Act, within: float, brought: bytes = b"") -> _Reply | None:
        body = msgspec.json.encode(_Request(self._key, self._receiver, act, brought))
        answer = await self._questions.ask(self._node, body, within)
        return None if answer is None else _REPLY.decode(answer)

    async def _tell(self, act: _Act) -> None:
        await self._questions.tell(self._node, msgspec.json.encode(_Request(self._key, self._receiver, act)))


def _frame(reply: _Reply | None) -> Frame | None:
    if reply is None:
        return _LOST
    if reply.busy:
        return STILL_OPEN
    return None if reply.frame is None else Frame(reply.frame, reply.last)


def _key(name: str) -> str:
    """What names a session among nodes: short, whatever the client chose."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _lease(key: str) -> str:
    return f"sockjs.{key}"
