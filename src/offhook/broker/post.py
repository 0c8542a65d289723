"""Commands among nodes.

They have no offsets by which a loss would show, and need none: whoever may have missed some asks the store
(``resync``). That is so for a node that hears its channels again, since commands are lost only when a connection
breaks, and for one that another node could not be sure to have reached: it is told to, as soon as that is possible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from offhook.broker import codec
from offhook.broker.lookout import Counts
from offhook.broker.mesh import Mesh
from offhook.ports import EVERY_NODE, Command

TOLD_WITHIN = 1.0
"""Seconds that a command waits for Redis."""
RESYNC_AFTER = 0.05
"""Seconds in which several reasons to look at the store make one."""
MAX_OWED = 1_000
"""Nodes that are remembered as having missed commands; beyond that all count as such."""
TELL_AGAIN = 0.25

log = structlog.get_logger(__name__)


class Post:
    """Sends and takes the commands of one node.

    Args:
        node: this node's name.
        mesh: the servers.
        on_command: takes the commands to this node.
        on_resync: is called when some may have been lost.
        counts: is added to.
    """

    def __init__(
        self,
        node: str,
        mesh: Mesh,
        on_command: Callable[[Command], object],
        on_resync: Callable[[], object],
        counts: Counts,
    ) -> None:
        self._node = node
        self._mesh = mesh
        self._on_command = on_command
        self._on_resync = on_resync
        self._counts = counts
        self._prefix = self._own = self._every = b""
        self._resync: asyncio.TimerHandle | None = None
        self._owed: set[str] = set()
        self._owes = asyncio.Event()
        self._payer: asyncio.Task[None] | None = None
        self._closed = False

    def open(self, prefix: bytes) -> None:
        """Hears this node's channels, whose names begin so; again with another prefix, those in place of the old."""
        if self._own:
            self._mesh.unwant(self._own)
            self._mesh.unwant(self._every)
        self._prefix = prefix
        self._own = self._channel(self._node)
        self._every = prefix + b"every"
        self._mesh.want(self._own)
        self._mesh.want(self._every)
        if self._payer is None:
            self._payer = asyncio.create_task(self._pay(), name="owed resyncs")

    async def close(self) -> None:
        """Takes no more commands."""
        self._closed = True
        if self._resync is not None:
            self._resync.cancel()
        if self._payer is not None:
            self._payer.cancel()
            await asyncio.gather(self._payer, return_exceptions=True)

    def _channel(self, node: str) -> bytes:
        return self._prefix + b"n:" + node.encode()

    # --- sending ----------------------------------------------------------------------------------------------------

    async def send(self, node: str, command: Command) -> bool:
        """Sends a command, as ``ports.Broker`` says. One to this node never leaves it."""
        here = node in (self._node, EVERY_NODE)
        if here:
            asyncio.get_running_loop().call_soon(self._obey, command)
        if node == self._node:
            return True
        heard = await self._tell(node, command)
        if heard is None:
            self._owe(node)
        return here or bool(heard)

    async def _tell(self, node: str, word: codec.Word) -> int | None:
        data = codec.encode_command(word)
        if node != EVERY_NODE:
            return await self._mesh.tell(self._channel(node), data, TOLD_WITHIN)
        # Marked, so that this node knows its own.
        return await self._mesh.tell(self._every, self._node.encode() + b" " + data, TOLD_WITHIN)

    def _owe(self, node: str) -> None:
        """Others are to look at the store, as soon as they can be told so."""
        if len(self._owed) >= MAX_OWED:
            self._owed = {EVERY_NODE}
        self._owed.add(node)
        self._owes.set()

    async def _pay(self) -> None:
        while True:
            await self._owes.wait()
            self._owes.clear()
            while self._owed:
                await asyncio.sleep(TELL_AGAIN)
                for node in list(self._owed):
                    # Taken out first: what is lost meanwhile is owed anew. Who does not hear it asks the store itself
                    # when it hears again.
                    self._owed.discard(node)
                    if await self._tell(node, codec.Resync()) is None:
                        self._owed.add(node)

    # --- taking -----------------------------------------------------------------------------------------------------

    def takes(self, channel: bytes) -> bool:
        """Whether a channel carries commands to this node."""
        return channel in (self._own, self._every)

    def message(self, channel: bytes, data: bytes) -> None:
        """A message came on one of its channels."""
        if channel == self._every:
            sender, _, data = data.partition(b" ")
            if sender == self._node.encode():
                return
        try:
            word = codec.decode_command(data)
        except codec.Undecodable as error:
            log.warning("command_undecodable", error=str(error))
            self._counts.undecodable += 1
            self.resync()
            return
        if isinstance(word, codec.Resync):
            self.resync()
        else:
            self._obey(word)

    def resync(self) -> None:
        """Commands may have passed by."""
        if self._resync is None and not self._closed:
            self._resync = asyncio.get_running_loop().call_later(RESYNC_AFTER, self._resync_now)

    def _resync_now(self) -> None:
        self._resync = None
        try:
            self._on_resync()
        except Exception:
            log.exception("resync_failed")

    def _obey(self, command: Command) -> None:
        if self._closed:
            return
        try:
            self._on_command(command)
        except Exception:
            log.exception("command_failed", command=type(command).__name__)
