"""What clients of Kandy show to prove who they are (Kandy protocol notes, 2.1-2.4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from offhook.domain.values import JsonObject
from offhook.errors import AccessDenied
from offhook.ports import StartAttempt

PROTOCOL = "kandy"
WRONG = "The username or the password is wrong"


@dataclass(frozen=True, slots=True)
class PasswordProof:
    """A password, with the name that it is sent with; that may differ from the user's.

    Attributes:
        authname: the name.
        password: the password.
    """

    authname: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BearerProof:
    """A bearer token: a JWT, or what the application's own function understands."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccessProof:
    """An access token: one of ours, or as a bearer token."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HmacProof:
    """A token that the application's own back end made, good for one subscription."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HmacSessionProof:
    """What the answer to a subscription by HMAC token gave to its client."""

    session: str = field(repr=False)


Proof = PasswordProof | BearerProof | AccessProof | HmacProof | HmacSessionProof


def attempt_by(
    application: str, username: str, proof: PasswordProof | BearerProof | AccessProof, address: str
) -> StartAttempt:
    """The attempt as authenticators and the applications' own functions see it.

    Functions are told the name that a password came with only if it is not the username.
    """
    params: JsonObject
    if isinstance(proof, PasswordProof):
        params = {"password": proof.password}
        if proof.authname != username:
            params["authname"] = proof.authname
    else:
        params = {"token": proof.token}
    return StartAttempt(application, username, params, PROTOCOL, address)


def check_authname(proof: PasswordProof, username: str) -> None:
    """Where no function decides, a password counts only for its own user: by whole name, or by the part before ``@``.

    Raises:
        AccessDenied: it was sent with another name; the message is that of a wrong password.
    """
    if proof.authname == username:
        return
    if not proof.authname or proof.authname != username.rpartition("@")[0]:
        raise AccessDenied(WRONG)
