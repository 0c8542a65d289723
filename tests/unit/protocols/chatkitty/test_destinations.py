"""Destinations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.chatkitty.destinations import (
    MAX_SIZE,
    USER_TOPICS,
    DestinationError,
    ListPart,
    list_relay,
    local_part,
    parse_list,
    parse_user_topic,
    split_item,
    user_topic,
)


def test_both_prefixes_name_the_same() -> None:
    assert local_part("/application/v1/user.relay") == local_part("/application/user.relay") == "user.relay"
    assert local_part("/topic/v1.users.1.self") is None
    assert local_part("/user/queue/errors") is None


@given(st.integers(0, 2**53 - 1), st.sampled_from(USER_TOPICS))
def test_topics_of_users_round_trip(user_id: int, key: str) -> None:
    assert parse_user_topic(user_topic(user_id, key)) == (user_id, key)


@pytest.mark.parametrize("text", ["", "/topic/v1.users.1.nope", "/topic/v1.users.x.self", "/topic/v1.users.-1.self"])
def test_other_topics_are_none(text: str) -> None:
    assert parse_user_topic(text) is None


def test_the_first_page_is_open_for_size_and_sort() -> None:
    relay = list_relay("user/contacts")
    assert relay.endswith(".size..sort.")
    assert parse_list("user/contacts.relay.page.0.size..sort.") == ("user/contacts", ListPart())
    # Some clients fill both in, some append the order (ChatKitty protocol notes, 7.2).
    assert parse_list("user/contacts.relay.page.0.size.5.sort.name,desc") == (
        "user/contacts",
        ListPart(0, 5, "name,desc"),
    )
    assert parse_list("c/1/members.relay.page.0.size..sort.user.displayName,asc") == (
        "c/1/members",
        ListPart(0, 25, "user.displayName,asc"),
    )


@given(st.integers(0, 1_000_000), st.integers(1, MAX_SIZE), st.text(max_size=20))
def test_pages_round_trip(page: int, size: int, sort: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in sort):
        return
    local = local_part(list_relay("user/contacts", page, size, sort))
    assert local is not None
    assert parse_list(local) == ("user/contacts", ListPart(page, size, sort))


def test_sizes_are_clamped_and_nonsense_is_refused() -> None:
    found = parse_list("a.relay.page.0.size.5000.sort.")
    assert found is not None and found[1].size == MAX_SIZE
    assert parse_list("user.relay") is None
    for bad in (
        "a.relay.page.x.size..sort.",
        "a.relay.page.0.size.0.sort.",
        "a.relay.page.0",
        "a.relay.page.9999999.size..sort.",
    ):
        with pytest.raises(DestinationError):
            parse_list(bad)


def test_items_of_collections() -> None:
    assert split_item("users/12.relay", "users") == (12, "relay")
    assert split_item("user/blocked_records/5.delete", "user/blocked_records") == (5, "delete")
    for text in ("users/me.relay", "users/12", "users/.relay", "users/1²3.relay", "channels/1.relay"):
        assert split_item(text, "users") is None
