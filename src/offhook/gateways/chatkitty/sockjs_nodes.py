"""SockJS sessions over requests where several nodes serve: each lives at one of them, and its requests come to any.

The node that gets a client's first request claims the session by a lease, and has it. Another one, to which a request
of the same client comes, finds it by the lease, asks for what it has for the client, and hands over what the client
brought. What is asked again because the answer did not come is done once. Where that does not help, the session ends,
and the client comes back and resumes; what it has not acknowledged comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
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
ROUND = 5.0
"""Seconds after which another node answers that there is nothing yet."""
ANSWER_WITHIN = 2.0
"""Seconds that an answer may take beyond that."""
GIVE_UP_AFTER = 5.0
"""Seconds for which a question is asked again when it is not answered."""
ASK_AGAIN_EVERY = 0.2
TAKEN_WITHIN = 20.0
"""Seconds within which another node takes what a client brings, which it puts off while the client is congested."""
TAKEN_AT_ONCE = 0.1
"""Seconds within which it does so otherwise."""
BRINGING = 8
"""Requests of clients that may be on their way to another node at once: each may be as large as a body can be."""
ASKED_AGAIN_WITHIN = 30.0
"""Seconds within which the node where a stream is asks for more, however slowly the client reads."""
POLLED_AGAIN_WITHIN = 15.0
"""Seconds within which a client polls again after an answer that may be on its way for long."""
REMEMBERED = 10_000
"""Places of sessions elsewhere that a node remembers."""

_Act = Literal["fetch", "leave", "abort", "take", "taken"]


class _Request(msgspec.Struct, frozen=True, array_like=True):
    """What one node asks another.

    Attributes:
        key: names the session.
        act: what is to be done; ``taken`` asks what became of a ``take``.
        receiver: names the client's request, of which there may be several questions.
        number: of this question among those; the same one is answered the same way.
        stays: whether the client's request goes on after a frame.
        brought: for ``take``: the body that the client sent.
    """

    key: bytes
    act: _Act
    receiver: bytes
    number: int = 0
    stays: bool = False
    brought: bytes = b""


class _Reply(msgspec.Struct, frozen=True, array_like=True):
    """What the other answers.

    Attributes:
        frame: for the client; None: there is none yet, or what was brought is taken.
        last: whether that is the session's last one.
        busy: whether another request fetches already.
        pending: whether what was brought is yet to be taken.
    """

    frame: bytes | None = None
    last: bool = False
    busy: bool = False
    pending: bool = False


_REQUEST = msgspec.msgpack.Decoder(_Request)
_REPLY = msgspec.msgpack.Decoder(_Reply)
_ENCODER = msgspec.msgpack.Encoder()
_LOST = Frame(sockjs.encode_close(1006, "Connection lost"), last=True)
STILL_OPEN = Frame(sockjs.encode_close(2010, "Another connection still open"), last=True)


@dataclass(slots=True)
class _Here:
    """A session of this node.

    Attributes:
        session: the session.
        sure_at: when its place was made sure of.
        under_way: what is being done, or was done last, of each kind: whose and which question, and the work.
        left: the client's request that is to fetch no more.
    """

    session: XhrSession
    sure_at: float = field(default_factory=time.monotonic)
    under_way: dict[str, tuple[tuple[bytes, int], asyncio.Task[_Reply]]] = field(default_factory=dict)
    left: bytes = b""

    def begin(self, request: _Request, work: Coroutine[object, object, _Reply]) -> asyncio.Task[_Reply]:
        """Begins what a question asks for."""
        task = asyncio.create_task(work, name=f"sockjs {request.act}")
        self.under_way[request.act] = (request.receiver, request.number), task
        return task

    def leave(self, receiver: bytes) -> None:
        """A client's request fetches no more. If it waits for an answer, it gets that at once."""
        self.left = receiver
        (asked, _), task = self.under_way.get("fetch", ((b"", 0), None))
        if task is not None and asked == receiver and not task.done():
            self.session.wake()
        else:
            self.session.detach(receiver)

    def begun(self, act: str, request: _Request) -> asyncio.Task[_Reply] | None:
        """The work that a question began, if it is still known."""
        asked, task = self.under_way.get(act, (None, None))
        return task if asked == (request.receiver, request.number) else None


class Places:
    """Where sessions live.

    Args:
        broker: has the leases.
        questions: to other nodes; those of others are answered from here on.
        limits: of what clients bring.
    """

    def __init__(self, broker: Broker, questions: Questions, limits: sockjs.Limits) -> None:
        self._broker = broker
        self.questions = questions
        self._limits = limits
        self._here: dict[bytes, _Here] = {}
        self._holders: OrderedDict[bytes, str] = OrderedDict()
        self._bringing: dict[str, asyncio.Semaphore] = {}
        self.draining = False
        self.far: set[FarSession] = set()
        """Sessions elsewhere of which a client's request waits here."""
        questions.answer_with(self._answer)

    # --- for the clients' requests ----------------------------------------------------------------------------------

    async def find(self, name: str) -> FarSession | None:
        """The session of a name at another node, if it is at one. Raises as ``Broker.lease_holder`` does."""
        key = _key(name)
        holder = self._holders.get(key) or await self._broker.lease_holder(_lease(key))
        return None if holder is None or holder == self.questions.node else self._elsewhere(key, holder)

    async def claim(self, name: str) -> FarSession | None:
        """Says that the session of a name is to be here. Returns it if it is at another node.

        Raises:
            Unavailable: the leases cannot be looked at, or it ends at this moment.
        """
        key = _key(name)
        holder = self._holders.get(key)
        if holder is None:
            if await self._broker.acquire_lease(_lease(key), self.questions.node, LEASE):
                return None
            holder = await self._broker.lease_holder(_lease(key))
        if holder is None:
            raise Unavailable("The session ends at this moment")
        return self._elsewhere(key, holder)

    def settle(self, name: str, session: XhrSession) -> None:
        """The session that was claimed is here."""
        self._here[_key(name)] = _Here(session)

    def used(self, name: str) -> None:
        """A session that is here is in use: its place is remembered for longer."""
        key = _key(name)
        self._used(key, self._here[key])

    def forget(self, name: str) -> None:
        """The session that was here is no more."""
        key = _key(name)
        del self._here[key]
        in_background(self._broker.release_lease(_lease(key), self.questions.node))

    def bringing(self, node: str) -> asyncio.Semaphore:
        """What holds who brings something to a node."""
        return self._bringing.setdefault(node, asyncio.Semaphore(BRINGING))

    def drain(self) -> None:
        """Ends the requests that wait here for what sessions elsewhere have: the clients ask again, at another node."""
        self.draining = True
        for far in self.far:
            far.leave_soon()

    def lost(self, key: bytes) -> None:
        """A session elsewhere is no more."""
        self._holders.pop(key, None)

    def _elsewhere(self, key: bytes, holder: str) -> FarSession:
        self._holders[key] = holder
        self._holders.move_to_end(key)
        if len(self._holders) > REMEMBERED:
            self._holders.popitem(last=False)
        return FarSession(self, holder, key)

    def _used(self, key: bytes, here: _Here) -> None:
        if time.monotonic() - here.sure_at > MADE_SURE_EVERY:
            here.sure_at = time.monotonic()
            in_background(self._make_sure(key))

    async def _make_sure(self, key: bytes) -> None:
        await self._broker.acquire_lease(_lease(key), self.questions.node, LEASE)

    # --- for other nodes --------------------------------------------------------------------------------------------

    async def _answer(self, body: bytes) -> bytes | None:
        request = _REQUEST.decode(body)
        here = self._here.get(request.key)
        if here is None:
            return None
        reply = _Reply()
        match request.act:
            case "fetch":
                self._used(request.key, here)
                task = here.begun("fetch", request)
                if task is None:
                    if here.left == request.receiver:
                        return _ENCODER.encode(reply)
                    if not here.session.attach(request.receiver):
                        return _ENCODER.encode(_Reply(busy=True))
                    task = here.begin(request, self._fetch(here, request))
                reply = await task
            case "leave":
                here.leave(request.receiver)
            case "abort":
                here.session.lose("another node did not get its messages")
            case "take":
                task = here.begun("take", request) or here.begin(request, self._take(here, request))
                reply = await _outcome(task, TAKEN_AT_ONCE)
            case "taken":
                task = here.begun("take", request)
                if task is None:
                    return None
                reply = await _outcome(task, ROUND)
        return _ENCODER.encode(reply)

    async def _fetch(self, here: _Here, request: _Request) -> _Reply:
        session, receiver = here.session, request.receiver
        frame = await session.fetch(ROUND)
        if here.left == receiver:
            session.detach(receiver)
        elif frame is not None and not request.stays:
            session.detach(receiver, POLLED_AGAIN_WITHIN)
        else:
            session.expect(receiver, ASKED_AGAIN_WITHIN)
        return _Reply() if frame is None else _Reply(*frame)

    async def _take(self, here: _Here, request: _Request) -> _Reply:
        await here.session.bring(request.brought, sockjs.decode_messages(request.brought, self._limits))
        return _Reply()


class FarSession:
    """A session at another node, as one request that came here sees it. See ``sockjs_sockets.Session``.

    Args:
        places: of all sessions.
        node: where this one is.
        key: names it there.
    """

    def __init__(self, places: Places, node: str, key: bytes) -> None:
        self._places = places
        self._node = node
        self._key = key
        self._receiver = secrets.token_bytes(8)
        self._number = 0
        self._stays = False
        self._over = False
        self._leaving = places.draining

    def attach(self, receiver: object, *, stays: bool = False) -> bool:
        """See ``sockjs_sockets.Session``. Whether another request fetches already is known only there."""
        self._stays = stays
        self._places.far.add(self)
        return True

    @property
    def ending(self) -> bool:
        """See ``sockjs_sockets.Session``."""
        return self._leaving

    async def fetch(self, wait: float) -> Frame | None:
        """See ``sockjs_sockets.Session``."""
        until = time.monotonic() + wait
        while not self._leaving:
            frame = await self._fetch()
            if frame is not None:
                self._over = frame.last or not self._stays
                return frame
            if time.monotonic() >= until:
                break
        return None

    async def _fetch(self) -> Frame | None:
        self._number += 1
        try:
            reply = await self._ask("fetch", ROUND)
        except Unavailable:
            # Its answer may have had messages that are nowhere any more.
            await self._tell("abort")
            reply = None
        if reply is None:
            self._places.lost(self._key)
            return _LOST
        if reply.busy:
            return STILL_OPEN
        return None if reply.frame is None else Frame(reply.frame, reply.last)

    async def leave(self) -> None:
        """See ``sockjs_sockets.Session``: told before the client knows, whose next request may come to any node."""
        if not self._over:
            self._over = True
            with contextlib.suppress(Unavailable):
                await self._ask("leave", 0.0)

    def leave_soon(self) -> None:
        """What waits in ``fetch`` is to wait no longer."""
        if not self._leaving:
            self._leaving = True
            in_background(self._tell("leave"))

    def detach(self, receiver: object) -> None:
        """See ``sockjs_sockets.Session``."""
        self._places.far.discard(self)
        if not self._over:
            self._over = True
            in_background(self._tell("leave"))

    async def bring(self, body: bytes, messages: Sequence[str]) -> None:
        """See ``sockjs_sockets.Session``.

        Raises:
            NotFound: the session is no more.
            Unavailable: the other node does not answer, or does not take it in time.
        """
        until = time.monotonic() + TAKEN_WITHIN
        self._number += 1
        try:
            reply = await self._ask("take", TAKEN_AT_ONCE, body)
            while reply is not None and reply.pending:
                if time.monotonic() > until:
                    raise Unavailable("The session takes no more now")
                reply = await self._ask("taken", ROUND)
        except Unavailable:
            # Whether it was taken is not known, so that the client must not go on as if it was, or was not.
            await self._tell("abort")
            raise
        if reply is None:
            self._places.lost(self._key)
            raise NotFound("There is no such SockJS session")

    async def _ask(self, act: _Act, wait: float, brought: bytes = b"") -> _Reply | None:
        """Asks until there is an answer, or there was none for long."""
        body = _ENCODER.encode(_Request(self._key, act, self._receiver, self._number, self._stays, brought))
        slot = self._places.bringing(self._node) if brought else contextlib.nullcontext()
        failing_since: float | None = None
        while True:
            try:
                async with asyncio.timeout(TAKEN_WITHIN), slot:
                    answer = await self._places.questions.ask(self._node, body, wait + ANSWER_WITHIN)
            except TimeoutError:
                raise Unavailable("Another process of this server is asked too much") from None
            except Unavailable:
                now = time.monotonic()
                failing_since = failing_since or now
                if now - failing_since > GIVE_UP_AFTER:
                    raise
                await asyncio.sleep(ASK_AGAIN_EVERY)
            else:
                return None if answer is None else _REPLY.decode(answer)

    async def _tell(self, act: _Act) -> None:
        body = _ENCODER.encode(_Request(self._key, act, self._receiver))
        await self._places.questions.tell(self._node, body)


async def _outcome(task: asyncio.Task[_Reply], within: float) -> _Reply:
    done, _ = await asyncio.wait([task], timeout=within)
    return task.result() if done else _Reply(pending=True)


def _key(name: str) -> bytes:
    """What names a session among nodes: short, whatever the client chose."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def _lease(key: bytes) -> str:
    return f"sockjs.{key.hex()}"
