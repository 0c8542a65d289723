"""The broker of a system of many nodes: what one commits, the others hear by way of Redis.

PostgreSQL is the truth, and holds every event under its offset; Redis only makes it fast. Its messages may be lost,
doubled or late, and it may be away altogether: what is missing is noticed by the offsets and read in the journal (see
``sequencer`` and ``lookout``). So nothing that happens to Redis loses an event, hands one out twice or out of turn; it
can only be late by ``LOOK_AWAY`` while Redis is away, and by ``LOOK_CALM`` if a last message was lost without a trace.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import structlog

from offhook.broker import codec
from offhook.broker.handlers import call
from offhook.broker.journal import Journal, JournalLeases, read_on
from offhook.broker.lookout import Counts, Lookout
from offhook.broker.mesh import Mesh, Servers
from offhook.broker.post import Post
from offhook.broker.recent import RECENT
from offhook.broker.sequencer import Line
from offhook.domain.events import Position, Topic
from offhook.ports import Command, Handlers, HistoryLost, Publication

HEARD_WITHIN = 0.25
"""Seconds that a subscription waits for Redis; after that the journal has what comes meanwhile."""

log = structlog.get_logger(__name__)


class RedisBroker(JournalLeases):
    """``ports.Broker`` among several processes, on one journal.

    Give its ``deliver`` to the store as what to call after a commit. Make and close it in the event loop.

    Args:
        journal: the durable history and the leases.
        servers: where Redis is.
        prefix: begins the names of the channels; made of the journal's epoch if empty, so that systems never mix.
        recent: events to keep in memory of each topic that is listened to.
    """

    def __init__(self, journal: Journal, servers: Servers, prefix: str = "", *, recent: int = RECENT) -> None:
        super().__init__(journal)
        self._fixed_prefix = prefix
        self._epoch = journal.epoch
        self._recent = recent
        self._lines: dict[Topic, Line] = {}
        self._node: str | None = None
        self._closed = False
        self._handlers = Handlers()
        self.counts = Counts()
        self._mesh = Mesh(servers, self)
        self._lookout = Lookout(
            journal, self._lines, self._hand_out, self._gap, lambda: self.connected, self._check_epoch, self.counts
        )
        self._prefix = b""
        self._post: Post | None = None
        self._joining: dict[bytes, asyncio.Future[None]] = {}

    def start(self, node: str, handlers: Handlers) -> None:
        """As ``ports.Broker`` says. An exception of a handler is logged and keeps nothing from anyone."""
        if self._node is not None or self._closed:
            raise RuntimeError("the broker has been started")
        self._node = node
        self._handlers = handlers
        self._name_channels()
        self._mesh.start()
        self._post = Post(node, self._mesh, handlers.command, handlers.resync, self.counts)
        self._post.open(self._prefix)
        self._lookout.start()

    @property
    def epoch(self) -> str:
        """As ``ports.Broker`` says."""
        return self._journal.epoch

    @property
    def connected(self) -> bool:
        """Whether Redis answers in time and all that is wanted of it is heard."""
        return self._mesh.complete

    @property
    def reconnects(self) -> int:
        """How many connections to Redis have broken."""
        return self._mesh.breaks

    @property
    def measures(self) -> Mapping[str, int]:
        """What was counted, by name: see ``lookout.Counts``."""
        return {**asdict(self.counts), "reconnects": self.reconnects}

    async def close(self) -> None:
        """As ``ports.Broker`` says. Nothing is delivered any more; the store closes the journal."""
        if self._closed:
            return
        self._closed = True
        self._lines.clear()
        self._handlers = Handlers()
        if self._post is not None:
            await self._post.close()
        await self._lookout.close()
        await self._mesh.close()
        for waiting in self._joining.values():
            waiting.cancel()
        self._joining.clear()

    # --- channels ---------------------------------------------------------------------------------------------------

    def _name_channels(self) -> None:
        prefix = self._fixed_prefix or "offhook:" + hashlib.sha256(self._journal.epoch.encode()).hexdigest()[:16]
        self._prefix = prefix.encode() + b":"
        self._epoch = self._journal.epoch

    def _channel(self, topic: Topic) -> bytes:
        return self._prefix + b"t:" + topic.encode()

    def _check_epoch(self) -> None:
        """If the journal has become another history, everything starts over."""
        if self._epoch == self._journal.epoch or self._node is None or self._closed:
            return
        for topic in self._lines:
            self._mesh.unwant(self._channel(topic))
        self._name_channels()
        if self._post is not None:
            self._post.open(self._prefix)
        for topic in list(self._lines):
            self._lines[topic] = Line(topic, self._recent)
            self._mesh.want(self._channel(topic))
        self._lookout.look_at_all()
        for topic in list(self._lines):
            self._gap(topic)

    # --- publications -----------------------------------------------------------------------------------------------

    def deliver(self, publications: Sequence[Publication]) -> None:
        """Hands what was committed here to the handler, as far as this node listens, and to the other nodes.

        Args:
            publications: in the order of the commits; each topic's without gaps, but for what other nodes committed.
        """
        if self._node is None or self._closed:
            return
        self._check_epoch()
        for publication in publications:
            if not self._mesh.publish(
                self._channel(publication.topic), codec.encode_publication(publication, self._node)
            ):
                self.counts.drops += 1
            line = self._lines.get(publication.topic)
            if line is None or publication.position.epoch != self._epoch:
                continue
            if line.delivered is not None and publication.position.offset <= line.delivered:
                # Read in the journal before the commit was known here, without the request that caused it.
                if publication.origin is not None:
                    self._hand_out_late(publication, line)
            else:
                self._take(line, publication)

    def _take(self, line: Line, publication: Publication) -> None:
        self._hand_out(line.take(publication))
        if line.behind:
            self._lookout.missing(line)

    def _hand_out(self, publications: Sequence[Publication]) -> None:
        for publication in publications:
            call("publication_failed", publication.topic, self._handlers.publication, publication)

    def _hand_out_late(self, publication: Publication, line: Line) -> None:
        newer = line.after(publication.position.offset, self._recent) or ()
        call("publication_failed", publication.topic, self._handlers.late, publication, newer)

    def _gap(self, topic: Topic) -> None:
        call("gap_failed", topic, self._handlers.gap, topic)

    async def subscribe(self, topic: Topic) -> None:
        """As ``ports.Broker`` says. Does not wait for a Redis or a journal that is away."""
        if self._node is None or self._closed:
            return
        line = self._lines.get(topic)
        if line is None:
            line = self._lines[topic] = Line(topic, self._recent)
            self._mesh.want(self._channel(topic))
        elif line.delivered is not None:
            return
        channel = self._channel(topic)
        if self._mesh.reachable(channel) and not self._mesh.heard(channel):
            joined = self._joining.get(channel)
            if joined is None:
                joined = self._joining[channel] = asyncio.get_running_loop().create_future()
            await asyncio.wait((joined,), timeout=HEARD_WITHIN)
            if not joined.done():
                # Whoever hears it then without anyone waiting looks at the head again.
                self._joining.pop(channel, None)
        if self._lines.get(topic) is line:
            await self._lookout.looked(topic)

    async def unsubscribe(self, topic: Topic) -> None:
        """As ``ports.Broker`` says."""
        if self._lines.pop(topic, None) is not None and self._node is not None:
            channel = self._channel(topic)
            self._mesh.unwant(channel)
            self._end_wait(channel)

    async def position(self, topic: Topic) -> Position:
        """As ``ports.Broker`` says. Of a topic that is heard: whatever comes after it is yet to be handed out."""
        self._check_epoch()
        line = await self._begun(topic)
        if line is not None and line.delivered is not None:
            return Position(self._epoch, line.delivered)
        return Position(self._journal.epoch, await self._journal.head(topic))

    async def _begun(self, topic: Topic) -> Line | None:
        """The line of a topic that is heard, once it is known where it begins, unless the journal is away."""
        line = self._lines.get(topic)
        if line is not None and line.delivered is None and self._node is not None:
            await self._lookout.looked(topic)
        return line

    async def history(self, topic: Topic, after: Position, limit: int) -> Sequence[Publication]:
        """As ``ports.Broker`` says. Of a topic that is heard: up to what was handed out."""
        self._check_epoch()
        epoch = self._epoch
        if after.epoch != epoch:
            raise HistoryLost(f"{topic} is in epoch {epoch}, not {after.epoch}")
        line = await self._begun(topic)
        if line is not None and line.delivered is not None:
            # What another node has shown its client by now is handed out here before anything else is said.
            head = after.offset
            while self._lines.get(topic) is line and line.delivered < min(after.offset, head):
                head = await self._lookout.read(line)
            recent = line.after(after.offset, limit)
            if recent is not None:
                return recent
        found = await read_on(self._journal, topic, after, limit)
        if line is not None and self._lines.get(topic) is line and line.delivered is not None:
            delivered = line.delivered
            return [publication for publication in found if publication.position.offset <= delivered]
        return found

    # --- commands ---------------------------------------------------------------------------------------------------

    async def send(self, node: str, command: Command) -> bool:
        """As ``ports.Broker`` says. A command to this node never leaves it; its handler is called in a later turn."""
        if self._post is None or self._closed:
            return False
        return await self._post.send(node, command)

    # --- Redis's side (``link.Listener``) ---------------------------------------------------------------------------

    def message(self, channel: bytes, data: bytes) -> None:
        """See ``link.Listener``."""
        if self._post is not None and self._post.takes(channel):
            self._post.message(channel, data)
        else:
            self._hear_publication(channel, data)

    def _hear_publication(self, channel: bytes, data: bytes) -> None:
        topic = Topic(channel[len(self._prefix) + 2 :].decode(errors="replace"))
        line = self._lines.get(topic)
        if line is None:
            return
        try:
            header = codec.decode_header(data)
            offset = header.position.offset
            if header.node == self._node:
                return
            if header.position.epoch != self._epoch:
                raise codec.Undecodable("of another epoch")
            if line.delivered is not None and offset <= line.delivered:
                return
            publication = codec.decode_publication(topic, header, data)
        except codec.Undecodable as error:
            if not self.counts.undecodable:
                # One tells it all; the rest are counted.
                log.warning("publication_undecodable", topic=topic, error=str(error))
            self.counts.undecodable += 1
            self._lookout.look(topic)
            return
        self._take(line, publication)

    def joined(self, channel: bytes) -> None:
        """See ``link.Listener``."""
        if self._post is not None and self._post.takes(channel):
            # Commands may have passed by before.
            self._post.resync()
        elif not self._end_wait(channel):
            self._lookout.look(Topic(channel[len(self._prefix) + 2 :].decode(errors="replace")))

    def _end_wait(self, channel: bytes) -> bool:
        """Lets go on who waits for a channel to be heard. Returns whether someone did."""
        waiting = self._joining.pop(channel, None)
        if waiting is None:
            return False
        if not waiting.done():
            waiting.set_result(None)
        return True

    def left(self, channels: Iterable[bytes]) -> None:
        """See ``link.Listener``."""
        self._mesh.look_again()
        self._lookout.look_at_all()

    def misdirected(self) -> None:
        """See ``link.Listener``."""
        self._mesh.look_again()

    def turned(self) -> None:
        """See ``link.Listener``."""
        self._lookout.look_at_all()
