"""Questions from node to node, and their answers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

import structlog

from offhook.errors import Unavailable
from offhook.ports import Answer, Broker, Question

HEARD_WITHIN = 3.0
"""Seconds for which an answer is said again to a node that does not hear it."""
SAID_AGAIN_EVERY = 0.1

log = structlog.get_logger(__name__)


class Questions:
    """What one node asks others, and is asked by them.

    Args:
        broker: carries both.
        node: this node's name.
    """

    def __init__(self, broker: Broker, node: str) -> None:
        self.node = node
        self._broker = broker
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[bytes | None]] = {}
        self._answerer: Callable[[bytes], Awaitable[bytes | None]] = _nobody

    def answer_with(self, answerer: Callable[[bytes], Awaitable[bytes | None]]) -> None:
        """Says who answers what other nodes ask.

        Args:
            answerer: takes a question's body and returns the answer's; None: what it is about is not here.
        """
        self._answerer = answerer

    async def ask(self, node: str, body: bytes, within: float) -> bytes | None:
        """Asks another node.

        Args:
            node: its name.
            body: what its ``answer_with`` understands.
            within: seconds to wait for the answer.

        Returns:
            The answer, or None: the node does not have what this is about.

        Raises:
            Unavailable: there was no answer in time, or nobody heard the question. Whether it arrived is not known.
        """
        number = next(self._numbers)
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._open[number] = answer
        try:
            async with asyncio.timeout(within):
                if not await self._broker.send(node, Question(self.node, number, body)):
                    raise Unavailable("Another process of this server is not heard of")
                return await answer
        except TimeoutError:
            raise Unavailable("Another process of this server does not answer") from None
        finally:
            del self._open[number]

    async def tell(self, node: str, body: bytes) -> None:
        """Tells another node something whose answer nobody waits for, if that can be done now."""
        await self._broker.send(node, Question(self.node, next(self._numbers), body))

    async def asked(self, question: Question) -> None:
        """Answers a question of another node."""
        try:
            body = await self._answerer(question.body)
        except Exception:
            log.exception("question_failed", node=question.node)
            body = None
        until = time.monotonic() + HEARD_WITHIN
        while not await self._broker.send(question.node, Answer(question.number, body)):
            if time.monotonic() > until:
                log.warning("answer_unheard", node=question.node)
                return
            await asyncio.sleep(SAID_AGAIN_EVERY)

    def answered(self, answer: Answer) -> None:
        """Takes an answer; one for which nobody waits any more is dropped."""
        waiting = self._open.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer.body)


async def _nobody(_: bytes) -> bytes | None:
    return None
