from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from functools import cache

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from offhook.domain.accounts import TokenPolicy
from offhook.errors import AccessDenied, InvalidInput
from offhook.services.tokens import MAX_TOKEN, TokenVerifier, VerifiedToken, validate_policy

SECRET = "a shared secret of at least 32 bytes"


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


HS256 = TokenPolicy(algorithms=("HS256",), secret=SECRET)


def rs256() -> TokenPolicy:
    return TokenPolicy(algorithms=("RS256",), public_key=pem(rsa_key()))


def claims(**changes: object) -> dict[str, object]:
    made: dict[str, object] = {"sub": "jane", "exp": time.time() + 7200, **changes}
    return {name: value for name, value in made.items() if value is not None}


def hs256(**changes: object) -> str:
    return jwt.encode(claims(**changes), SECRET, "HS256")


def b64(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


@pytest.fixture
async def verifier() -> AsyncIterator[TokenVerifier]:
    made = TokenVerifier()
    yield made
    await made.close()
    await made.close()


async def test_each_algorithm(verifier: TokenVerifier) -> None:
    both = TokenPolicy(public_key=pem(ec_key()))
    for policy, token in (
        (HS256, hs256()),
        (rs256(), jwt.encode(claims(), rsa_key(), "RS256")),
        (both, jwt.encode(claims(), ec_key(), "ES256")),
    ):
        assert await verifier.verify(policy, token, "jane") == VerifiedToken("jane", None)


@pytest.mark.parametrize(
    ("name", "display_name"), [("Jane Doe", "Jane Doe"), ("", None), (5, None), ("a\nb", None), ("x" * 300, None)]
)
async def test_the_name_claim(verifier: TokenVerifier, name: object, display_name: str | None) -> None:
    assert await verifier.verify(HS256, hs256(name=name), "jane") == VerifiedToken("jane", display_name)


async def test_the_leeway(verifier: TokenVerifier) -> None:
    now = time.time()
    for times in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        await verifier.verify(HS256, hs256(**times), "jane")


async def test_issuer_audience_and_username_claim(verifier: TokenVerifier) -> None:
    policy = TokenPolicy(("HS256",), SECRET, issuer="https://id", audience="chat", username_claim="email")
    good = {"iss": "https://id", "aud": ["chat", "more"], "email": "jane", "sub": 7}
    assert (await verifier.verify(policy, hs256(**good), "jane")).username == "jane"
    for change, reason in (
        ({"iss": "https://other"}, "The token is from another issuer"),
        ({"iss": None}, "The token lacks iss"),
        ({"aud": "other"}, "The token is for another audience"),
        ({"aud": None}, "The token lacks aud"),
        ({"email": None}, "The token names no user"),
    ):
        with pytest.raises(AccessDenied, match=f"^{reason}$"):
            await verifier.verify(policy, hs256(**{**good, **change}), "jane")


async def test_an_audience_that_is_not_asked_for_does_no_harm(verifier: TokenVerifier) -> None:
    await verifier.verify(HS256, hs256(aud="whoever", iss="whoever", jti=5), "jane")


def bad_tokens() -> list[tuple[str, str]]:
    now, good = time.time(), hs256()
    head, body, signature = good.split(".")
    malformed = "The token is malformed"
    wrong = "The token's signature is wrong"
    algorithm = "The token's algorithm is not accepted"
    return [
        (hs256(exp=now - 31), "The token has expired"),
        (hs256(exp=None), "The token lacks exp"),
        (hs256(exp="soon"), malformed),
        (f"{head}.{b64(b'{')}.{signature}", wrong),
        (hs256(nbf=now + 3600), "The token is not valid yet"),
        (hs256(iat=now + 3600), "The token is not valid yet"),
        (jwt.encode(claims(), "another " + SECRET, "HS256"), wrong),
        (f"{head}.{b64(claims(sub='root'))}.{signature}", wrong),
        (f"{head}.{body}.", wrong),
        (f"{head}.{body}", malformed),
        ("", malformed),
        ("....", malformed),
        ("é.é.é", malformed),
        ("\ud800.a.b", malformed),
        (f"{b64([])}.{body}.{signature}", malformed),
        (f"{b64(b'[' * 10_000)}.{body}.{signature}", malformed),
        (jwt.encode(claims(), SECRET, "HS256", headers={"crit": ["b64"], "b64": True}), malformed),
        (good + "A" * MAX_TOKEN, "The token is too large"),
        (jwt.encode(claims(), None, "none"), algorithm),  # type: ignore[arg-type]
        (f"{b64({'alg': 'None'})}.{body}.", algorithm),
        (f"{b64({'alg': ['HS256']})}.{body}.{signature}", algorithm),
        (f"{b64({})}.{body}.{signature}", algorithm),
        (jwt.encode(claims(), SECRET * 2, "HS512"), algorithm),
        (hs256(sub="joe"), "The token is for another user"),
        (hs256(sub="Jane"), "The token is for another user"),
        (hs256(sub=None), "The token names no user"),
    ]


# A token differs from run to run, and the names of tests must not.
@pytest.mark.parametrize(("token", "reason"), bad_tokens(), ids=[reason for _, reason in bad_tokens()])
async def test_bad_tokens(verifier: TokenVerifier, token: str, reason: str) -> None:
    with pytest.raises(AccessDenied) as caught:
        await verifier.verify(HS256, token, "jane")
    assert caught.value.message == reason


@pytest.mark.parametrize("payload", [b"[" * 9000, b"[]", b"{", b'{"exp":1e999,"sub":"jane"}', b"\xff"])
async def test_signed_nonsense(verifier: TokenVerifier, payload: bytes) -> None:
    token = jwt.PyJWS().encode(payload, SECRET, "HS256")
    with pytest.raises(AccessDenied, match="The token is malformed"):
        await verifier.verify(HS256, token, "jane")


async def test_a_public_key_is_never_a_shared_secret(verifier: TokenVerifier) -> None:
    public = pem(rsa_key())
    unsigned = f"{b64({'alg': 'HS256', 'typ': 'JWT'})}.{b64(claims())}"
    forged = f"{unsigned}.{b64(hmac.new(public.encode(), unsigned.encode(), hashlib.sha256).digest())}"
    with pytest.raises(AccessDenied, match="algorithm is not accepted"):
        await verifier.verify(rs256(), forged, "jane")
    with pytest.raises(AccessDenied, match="cannot be checked now"):
        await verifier.verify(TokenPolicy(("HS256", "RS256"), public_key=public), forged, "jane")
    with pytest.raises(AccessDenied, match="signature is wrong"):
        await verifier.verify(TokenPolicy(("HS256", "RS256"), SECRET, public_key=public), forged, "jane")


async def test_a_key_of_another_kind_or_another_issuer(verifier: TokenVerifier) -> None:
    with pytest.raises(AccessDenied, match="algorithm is not accepted"):
        await verifier.verify(TokenPolicy(public_key=pem(rsa_key())), jwt.encode(claims(), ec_key(), "ES256"), "jane")
    other = rsa.generate_private_key(65537, 2048)
    with pytest.raises(AccessDenied, match="signature is wrong"):
        await verifier.verify(rs256(), jwt.encode(claims(), other, "RS256"), "jane")


@pytest.mark.parametrize(
    "policy",
    [
        HS256,
        rs256(),
        TokenPolicy(public_key=pem(ec_key())),
        TokenPolicy(jwks="https://id.example/keys"),
        TokenPolicy(jwks="keys.json", issuer="me", audience="you"),
        TokenPolicy(("HS256", "ES256"), SECRET, pem(ec_key())),
    ],
)
def test_good_policies(policy: TokenPolicy) -> None:
    validate_policy(policy)


def private_pem() -> str:
    return ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def bad_policies() -> list[tuple[TokenPolicy, str]]:
    return [
        (TokenPolicy(()), "algorithms"),
        (TokenPolicy(("none",)), "algorithms"),
        (TokenPolicy(("HS512",), SECRET), "algorithms"),
        (TokenPolicy(("HS256",)), "secret"),
        (TokenPolicy(("HS256",), "x" * 31), "secret"),
        (TokenPolicy(("HS256",), pem(ec_key())), "secret"),
        (TokenPolicy(secret=SECRET, jwks="keys.json"), "secret"),
        (TokenPolicy(), "public_key"),
        (TokenPolicy(public_key="nonsense"), "public_key"),
        (TokenPolicy(public_key="-----BEGIN PUBLIC KEY-----\né\n-----END PUBLIC KEY-----"), "public_key"),
        (TokenPolicy(public_key=private_pem()), "public_key"),
        (TokenPolicy(public_key=pem(rsa_key(1024))), "public_key"),
        (TokenPolicy(public_key=pem(ec.generate_private_key(ec.SECP384R1()))), "public_key"),
        (TokenPolicy(("ES256",), public_key=pem(rsa_key())), "public_key"),
        (TokenPolicy(("HS256",), SECRET, jwks="https://id.example/keys"), "jwks"),
        (TokenPolicy(jwks=" "), "jwks"),
        (TokenPolicy(jwks="https:///keys"), "jwks"),
        (TokenPolicy(jwks="https://["), "jwks"),
        (TokenPolicy(jwks="ftp://id.example/keys"), "jwks"),
        (TokenPolicy(("HS256",), SECRET, issuer=""), "issuer"),
        (TokenPolicy(("HS256",), SECRET, audience="a\n"), "audience"),
        (TokenPolicy(("HS256",), SECRET, username_claim=""), "username_claim"),
    ]


@pytest.mark.parametrize(("policy", "field"), bad_policies())
def test_bad_policies_name_the_field(policy: TokenPolicy, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        validate_policy(policy)
    assert caught.value.field == field
