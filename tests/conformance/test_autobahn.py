"""Autobahn's cases against the server's WebSocket layer: real uvicorn, real TCP. See README.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from tests.conformance.cases import MAX_MESSAGE, Case, Expect, Send, all_cases, expected
from tests.conformance.client import CLOSE, Client, Received, close_payload, frame
from tests.conformance.server import serve_echo

CASES = all_cases()

COUNTS = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}
"""How many cases Autobahn has in each group."""

SILENCE = 0.05
"""Seconds without an answer after which a server is taken to be content."""


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with serve_echo(MAX_MESSAGE, request.param) as port:
        yield port


def test_no_case_is_lost() -> None:
    assert Counter(case.number.partition(".")[0] for case in CASES) == COUNTS
    assert len({case.number for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_case(case: Case, port: int) -> None:
    with Client(port) as client:
        for step in case.script():
            if isinstance(step, Send):
                client.send(step.data, step.chop)
            elif isinstance(step, Expect):
                # A plain assert would take minutes to explain how two large payloads differ.
                if client.receive() != expected(step):
                    pytest.fail(f"the server did not answer {step.opcode} with {len(step.payload)} bytes")
            else:
                client.expect_silence(SILENCE)
        if case.by_client:
            client.send(frame(CLOSE, close_payload(1000)))
        code = close_code(client.receive())
        assert code in case.closed_with
        assert client.receive() is None, "the server must end the stream first"


def close_code(received: Received | None) -> int:
    """The code of a close frame; 1005 where it has none."""
    assert received is not None, "the stream ended without a close frame"
    assert received.opcode == CLOSE
    return int.from_bytes(received.payload[:2], "big") if received.payload else 1005
