"""The one table of failures."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from offhook import errors as tree
from offhook.errors import AccessDenied, InvalidInput, OffhookError, RateLimited, SessionLimitReached, TooLarge
from offhook.gateways.kandy.errors import FAILURES, Failure, Refusal, failure_of, proving, render
from offhook.protocols.kandy import wrappers
from offhook.protocols.kandy.paths import Resource
from offhook.protocols.kandy.requests import RequestError
from offhook.protocols.kandy.status import StatusCode


def every(kind: type[OffhookError]) -> Iterator[type[OffhookError]]:
    """A class of errors and all below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


def test_every_error_of_ours_is_in_the_table() -> None:
    codes = {kind.code for kind in every(OffhookError) if kind.__module__ == tree.__name__} - {OffhookError.code}
    assert codes <= set(FAILURES)


@pytest.mark.parametrize("resource", list(Resource))
@pytest.mark.parametrize("name", list(FAILURES))
def test_every_failure_has_a_form_for_every_resource(name: str, resource: Resource) -> None:
    answer = render(Failure(name, "It failed", 2.5, "some.field"), resource, "POST")
    body = json.loads(answer.body)
    wrapper = wrappers.failure_wrapper(resource, "POST")
    part = body[wrapper]
    code = part["code"] if wrapper == wrappers.UC else part["statusCode"]
    assert code == FAILURES[name][1] and code != 0
    assert answer.status == 200 or 400 <= answer.status <= 503
    assert answer.status not in (408, 410)
    assert answer.headers == ((b"retry-after", b"3"),)
    assert b"null" not in answer.body


def test_503_is_told_only_where_it_is_understood() -> None:
    understood = [r for r in Resource if render(Failure("unavailable", "Later", 1.0), r, "POST").status == 503]
    assert understood == [Resource.SUBSCRIPTION, Resource.ANONYMOUS_SUBSCRIPTION]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RequestError("Bad", "a.b"), Failure("invalid_body", "a.b: Bad", None, "a.b")),
        (RequestError("Bad", "", StatusCode.INVALID_VALUE), Failure("invalid_input", "Bad")),
        (InvalidInput("note is long", "note"), Failure("invalid_input", "note is long", None, "note")),
        (TooLarge("Large", 7), Failure("too_large", "Large")),
        (RateLimited("Slow down", 2.0), Failure("rate_limited", "Slow down", 2.0)),
        (Refusal("realm_unknown", "No"), Failure("realm_unknown", "No")),
        (OffhookError("a secret"), Failure("internal", "Something went wrong on the server")),
        (ValueError("a secret"), Failure("internal", "Something went wrong on the server")),
    ],
)
def test_what_a_client_is_told_of_an_error(error: Exception, expected: Failure) -> None:
    assert failure_of(error) == expected


def test_credentials_have_words_of_their_own() -> None:
    with pytest.raises(Refusal) as refused, proving():
        raise AccessDenied("No")
    assert refused.value.name == "credentials_refused"
    with pytest.raises(Refusal) as locked, proving():
        raise RateLimited("Later", 9.0)
    assert (locked.value.name, locked.value.retry_after) == ("credentials_locked", 9.0)


def test_who_has_proved_themselves_is_refused_for_what_it_is() -> None:
    with pytest.raises(SessionLimitReached), proving():
        raise SessionLimitReached("Too many")
    with pytest.raises(InvalidInput), proving():
        raise InvalidInput("Bad")
