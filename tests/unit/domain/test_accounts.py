"""Rules about the fields of users."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.domain.accounts import (
    MAX_NAME,
    User,
    UserChanges,
    check_properties,
    check_text,
    check_username,
    new_key,
    new_secret,
)
from offhook.errors import InvalidInput

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("name", ["jane", "jane@example.test", "a:b", "Ünï ☎", "x" * MAX_NAME, "null"])
def test_usernames_may_be_any_line_of_text(name: str) -> None:
    assert check_username(name) == name


@pytest.mark.parametrize("name", ["", "   ", "\t", "a\nb", "a\0b", "x" * (MAX_NAME + 1), "\ud800", 7, None, ["a"]])
def test_what_is_no_line_of_text_is_refused_by_name(name: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_text(name, "displayName")
    assert caught.value.field == "displayName"
    assert "displayName" in caught.value.message


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=20), st.booleans(), st.none())))
def test_small_objects_are_properties(value: dict[str, object]) -> None:
    if any("\ud800" <= c <= "\udfff" for c in repr(value)):
        return
    assert check_properties(value) == value


def _nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [None, [], "x", {1: 2}, {"a": "x" * 17_000}, {"a": float("nan")}, {"a": object()}, _nested(17), {"a": "\ud800"}],
)
def test_other_things_are_not(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_properties(value)
    assert caught.value.field == "properties"


def test_the_shown_status_follows_from_being_online() -> None:
    user = User(1, 1, "jane", "Jane", NOW)
    assert user.presence_status == "UNAVAILABLE"
    assert User(1, 1, "jane", "Jane", NOW, online=True).presence_status == "AVAILABLE"
    assert User(1, 1, "jane", "Jane", NOW, online=True, status="BUSY").presence_status == "BUSY"
    assert User(1, 1, "jane", "Jane", NOW, status="BUSY").presence_status == "UNAVAILABLE"


def test_no_changes_are_empty() -> None:
    assert UserChanges().empty
    assert not UserChanges(properties={}).empty


def test_keys_and_secrets_are_new_each_time() -> None:
    assert len({new_key() for _ in range(100)}) == 100
    assert len({new_secret() for _ in range(100)}) == 100
    assert len(new_secret()) >= 43
