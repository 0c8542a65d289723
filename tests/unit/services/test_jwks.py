from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from structlog.testing import capture_logs
from tests.unit.functions.http_receiver import Request, receiving, response

from offhook.domain.accounts import TokenPolicy
from offhook.errors import AccessDenied
from offhook.services import jwks
from offhook.services.jwks import MAX_AGE, MAX_KEYS, MAX_STALE, MIN_INTERVAL, parse_jwks
from offhook.services.tokens import TokenVerifier

UNKNOWN = "The token's key is unknown"
UNUSABLE = "Tokens cannot be checked now"
ES256 = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256)


@cache
def key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def jwk(name: str, **changes: object) -> dict[str, object]:
    made = {**ES256.to_jwk(key(name).public_key(), as_dict=True), "kid": name, **changes}
    return {field: value for field, value in made.items() if value is not None}


def jwk_set(*keys: dict[str, object]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def token(name: str, kid: str | None = "", username: str = "jane") -> str:
    headers = {} if kid is None else {"kid": kid or name}
    return jwt.encode({"sub": username, "exp": time.time() + 60}, key(name), "ES256", headers=headers)


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Issuer:
    """Publishes keys over HTTP.

    Attributes:
        answer: the response; empty resets the connection.
        fetches: how often it was asked.
        hold: while not set, requests wait.
    """

    def __init__(self) -> None:
        self.answer = response(200, jwk_set(jwk("a")))
        self.fetches = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.policy = TokenPolicy()
        self.time = Time()
        self.verifier = TokenVerifier(now=self.time)

    async def serve(self, request: Request) -> bytes:
        self.fetches += 1
        await self.hold.wait()
        return self.answer

    async def verify(self, text: str, username: str = "jane") -> None:
        await self.verifier.verify(self.policy, text, username)

    async def refused(self, text: str) -> str:
        with pytest.raises(AccessDenied) as caught:
            await self.verify(text)
        return caught.value.message


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    async with receiving(made.serve) as receiver:
        made.policy = TokenPolicy(jwks=receiver.url)
        yield made
        await made.verifier.close()


async def test_a_hundred_at_once_fetch_once(issuer: Issuer) -> None:
    issuer.hold.clear()
    attempts = [asyncio.create_task(issuer.verify(token("a"))) for _ in range(100)]
    while not issuer.fetches:
        await asyncio.sleep(0.001)
    attempts[0].cancel()  # the one that began the fetch goes away
    issuer.hold.set()
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [None] * 99
    await issuer.verify(token("a"))
    assert issuer.fetches == 1


async def test_an_unknown_kid_fetches_anew_but_not_too_often(issuer: Issuer) -> None:
    await issuer.verify(token("a"))
    issuer.answer = response(200, jwk_set(jwk("b")))
    assert await issuer.refused(token("b")) == UNKNOWN
    assert issuer.fetches == 1
    issuer.time.now += MIN_INTERVAL
    await issuer.verify(token("b"))
    assert await issuer.refused(token("a")) == UNKNOWN
    assert issuer.fetches == 2


async def test_keys_are_fetched_anew_after_a_while(issuer: Issuer) -> None:
    await issuer.verify(token("a"))
    issuer.answer = response(200, jwk_set(jwk("b")))
    issuer.time.now += MAX_AGE + 1
    assert await issuer.refused(token("a")) == UNKNOWN
    assert issuer.fetches == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        response(500),
        response(302, extra="Location: /\r\n"),
        response(200, b"nonsense"),
        response(200, b"[]"),
        response(200, b'{"keys":5}'),
        response(200, b"[" * 90_000),
        response(200, b" " * (jwks.MAX_SIZE + 1)),
    ],
)
async def test_old_keys_serve_for_a_day_while_there_are_no_new_ones(issuer: Issuer, answer: bytes) -> None:
    await issuer.verify(token("a"))
    issuer.answer = answer
    with capture_logs() as logs:
        issuer.time.now += MAX_STALE - 10
        await issuer.verify(token("a"))
        assert [entry["event"] for entry in logs] == ["jwks_unavailable"]
        await issuer.verify(token("a"))
        assert issuer.fetches == 2, "a source that is down is not asked for every token"
        issuer.time.now += MIN_INTERVAL
        assert await issuer.refused(token("a")) == UNUSABLE
        issuer.answer = response(200, jwk_set(jwk("a")))
        issuer.time.now += MIN_INTERVAL
        await issuer.verify(token("a"))


async def test_a_source_that_hangs_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.1)
    issuer.hold.clear()
    began = time.monotonic()
    assert await issuer.refused(token("a")) == UNUSABLE
    assert time.monotonic() - began < 2
    issuer.hold.set()


async def test_closing_ends_a_fetch_and_leaves_no_task(issuer: Issuer) -> None:
    issuer.hold.clear()
    attempt = asyncio.create_task(issuer.refused(token("a")))
    while not issuer.fetches:
        await asyncio.sleep(0.001)
    await issuer.verifier.close()
    assert await attempt == UNUSABLE
    assert await issuer.refused(token("a")) == UNUSABLE
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "offhook-jwks"]
    issuer.hold.set()


async def test_which_key_a_token_means(issuer: Issuer) -> None:
    issuer.answer = response(200, jwk_set(jwk("a"), jwk("b")))
    await issuer.verify(token("b"))
    assert await issuer.refused(token("b", kid="a")) == "The token's signature is wrong"
    assert await issuer.refused(token("a", kid=None)) == UNKNOWN, "two keys could be meant"
    issuer.answer = response(200, jwk_set(jwk("a", kid=None)))
    issuer.time.now += MAX_AGE + 1
    await issuer.verify(token("a", kid=None))
    assert await issuer.refused(token("a")) == UNKNOWN
    assert await issuer.refused(token("b", kid=None)) == "The token's signature is wrong"


async def test_malformed_tokens_cause_no_fetch(issuer: Issuer) -> None:
    assert await issuer.refused("a.b.c") == "The token is malformed"
    assert issuer.fetches == 0


async def test_keys_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    time_of_test = Time()
    verifier = TokenVerifier(now=time_of_test)
    policy = TokenPolicy(jwks=str(file))
    with capture_logs() as logs, pytest.raises(AccessDenied, match=UNUSABLE):
        await verifier.verify(policy, token("a"), "jane")
    assert [entry["event"] for entry in logs] == ["jwks_unavailable"]
    file.write_bytes(jwk_set(jwk("a")))
    time_of_test.now += MIN_INTERVAL
    await verifier.verify(policy, token("a"), "jane")
    await verifier.close()


def rsa_jwk(bits: int) -> dict[str, object]:
    public = rsa.generate_private_key(65537, bits).public_key()
    return jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)


def private_jwk() -> dict[str, object]:
    return ES256.to_jwk(key("a"), as_dict=True)


def p384_jwk() -> dict[str, object]:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return ES256.to_jwk(public, as_dict=True)


def test_good_keys_are_found_among_others() -> None:
    found = parse_jwks(
        jwk_set(
            jwk("a", use="sig", alg="ES256", key_ops=["verify"]),
            rsa_jwk(2048),
            jwk("enc", use="enc"),
            jwk("other", alg="ES384"),
            jwk("ops", key_ops=["sign"]),
            jwk("off", x="AAAA"),
            jwk("half", y=None),
            {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
            {"kty": "new"},
            rsa_jwk(1024),
            private_jwk(),
            p384_jwk(),
            "nonsense",  # type: ignore[arg-type]
        )
    )
    assert [(named.kid, named.algorithm) for named in found] == [("a", "ES256"), (None, "RS256")]


def test_too_many_keys() -> None:
    with pytest.raises(ValueError, match="more than"):
        parse_jwks(jwk_set(*([jwk("a")] * (MAX_KEYS + 1))))
