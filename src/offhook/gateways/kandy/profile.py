"""The resources ``userProfileData`` and ``localization`` (Kandy protocol notes, 7.2)."""

from __future__ import annotations

import re

from offhook.domain.accounts import User
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.request import Request, identify_user
from offhook.protocols.kandy import answers

DEFAULT_LANGUAGE = "en-US"
MAX_LANGUAGES = 20
"""Languages of a header that are looked at."""

_LANGUAGE = re.compile(r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,4})\s*(?:;\s*q=([01](?:\.\d{1,3})?)\s*)?")


async def show(gateway: Gateway, request: Request) -> bytes:
    """GET ``userProfileData``: what is known of the user."""
    user = await identify_user(gateway, request)
    first, last = names_of(user)
    return answers.profile(
        first_name=first,
        last_name=last,
        email_address=_text(user, "emailAddress"),
        photo_url=user.picture or _text(user, "photoURL"),
    )


async def localization(gateway: Gateway, request: Request) -> bytes:
    """GET ``localization``: the client's language.

    The path names no user, and there is nothing secret in a language that the client named itself: its browser knows
    the user's, while what is said at the subscription is the same constant for everybody unless an application sets
    it. So nobody has to prove anything.
    """
    return answers.localization(language_of(request.header(b"accept-language") or ""))


def names_of(user: User) -> tuple[str | None, str | None]:
    """A user's first and last name: those of the application, else the halves of the display name."""
    first, last = _text(user, "firstName"), _text(user, "lastName")
    if first is None and last is None:
        first, _, rest = user.display_name.strip().partition(" ")
        return first, rest.strip() or None
    return first, last


def language_of(header: str) -> str:
    """The language that an Accept-Language header (RFC 9110, 12.5.4) likes best."""
    best, most = DEFAULT_LANGUAGE, 0.0
    for item in header.split(",", MAX_LANGUAGES)[:MAX_LANGUAGES]:
        match = _LANGUAGE.fullmatch(item)
        if match is not None and (liked := float(match[2] or 1)) > most:
            best, most = match[1], liked
    return best


def _text(user: User, name: str) -> str | None:
    value = user.properties.get(name)
    return value if isinstance(value, str) and value else None
