"""Questions from node to node, on a broker that carries them within one process."""

from __future__ import annotations

import asyncio

import pytest

from offhook.errors import Unavailable
from offhook.ports import Answer, Command, Question
from offhook.services.questions import Questions


class Wire:
    """What two nodes say to each other; may lose it."""

    def __init__(self) -> None:
        self.nodes: dict[str, Questions] = {}
        self.lost: type[Command] | None = None

    async def send(self, node: str, command: Command) -> bool:
        if node not in self.nodes:
            return False
        if self.lost is not None and isinstance(command, self.lost):
            return True
        if isinstance(command, Question):
            asyncio.get_running_loop().create_task(self.nodes[node].asked(command))
        elif isinstance(command, Answer):
            self.nodes[node].answered(command)
        return True


@pytest.fixture
def wire() -> Wire:
    made = Wire()
    made.nodes = {name: Questions(made, name) for name in "ab"}  # type: ignore[arg-type]
    return made


async def echo(body: bytes) -> bytes | None:
    if body == b"fail":
        raise RuntimeError(body)
    return None if body == b"nothing" else body * 2


async def test_each_question_gets_its_answer(wire: Wire) -> None:
    wire.nodes["b"].answer_with(echo)
    answers = await asyncio.gather(*(wire.nodes["a"].ask("b", b"%d" % number, 5) for number in range(50)))
    assert answers == [b"%d%d" % (number, number) for number in range(50)]
    assert await wire.nodes["a"].ask("b", b"nothing", 5) is None


async def test_who_is_not_there_is_not_heard_of(wire: Wire) -> None:
    with pytest.raises(Unavailable, match="not heard of"):
        await wire.nodes["a"].ask("c", b"x", 5)
    assert await wire.nodes["a"].ask("b", b"x", 5) is None, "nobody answers there"


@pytest.mark.parametrize("lost", [Question, Answer])
async def test_what_is_lost_is_said_to_be_unknown(wire: Wire, lost: type[Command]) -> None:
    wire.nodes["b"].answer_with(echo)
    wire.lost = lost
    with pytest.raises(Unavailable):
        await wire.nodes["a"].ask("b", b"x", 0.01)
    wire.lost = None
    assert await wire.nodes["a"].ask("b", b"y", 5) == b"yy"


async def test_a_failure_there_is_an_answer(wire: Wire) -> None:
    wire.nodes["b"].answer_with(echo)
    assert await wire.nodes["a"].ask("b", b"fail", 5) is None


async def test_what_is_told_is_heard(wire: Wire) -> None:
    heard: list[bytes] = []

    async def hear(body: bytes) -> bytes | None:
        heard.append(body)
        return b"ignored"

    wire.nodes["b"].answer_with(hear)
    await wire.nodes["a"].tell("b", b"x")
    await wire.nodes["a"].tell("c", b"x")
    await wire.nodes["a"].ask("b", b"y", 5)
    assert heard == [b"x", b"y"]


async def test_an_answer_for_which_nobody_waits_is_dropped(wire: Wire) -> None:
    wire.nodes["a"].answered(Answer(7, b"late"))
    asking = asyncio.create_task(wire.nodes["a"].ask("b", b"x", 5))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert not wire.nodes["a"]._open
