"""Users and lists as clients read them: whole, and with links that lead where they say."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.domain.accounts import User
from offhook.domain.values import Page, PageRequest
from offhook.gateways.chatkitty.errors import timestamp
from offhook.gateways.chatkitty.resources import (
    blocked_record,
    current_user,
    event_body,
    other_user,
    page_resource,
    picture_url,
    relay_body,
)
from offhook.protocols.chatkitty.destinations import USER_TOPICS, local_part, parse_list, parse_user_topic

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
USER = User(42, 1, "jane", "Jane Doe", NOW, online=True)
BASE = "http://chat.example.test"


def read(resource: object) -> dict[str, object]:
    """A resource as a client reads it."""
    value = json.loads(relay_body(resource))["resource"]
    assert isinstance(value, dict)
    return value


def test_bodies_say_what_they_are() -> None:
    assert json.loads(relay_body({"a": 1})) == {"type": "relay", "version": "v1", "resource": {"a": 1}}
    assert json.loads(event_body("x.y", None)) == {"type": "x.y", "version": "v1", "resource": None}


def test_the_current_user_has_everything_a_client_starts_with() -> None:
    user = read(current_user(USER, BASE))
    assert user["id"] == 42 and user["type"] == "PERSON" and user["isGuest"] is False
    topics, actions, relays, streams = (user[key] for key in ("_topics", "_actions", "_relays", "_streams"))
    assert isinstance(topics, dict) and isinstance(actions, dict)
    assert isinstance(relays, dict) and isinstance(streams, dict)
    assert set(topics) == set(USER_TOPICS)
    assert {parse_user_topic(topic) for topic in topics.values()} == {(42, key) for key in USER_TOPICS}
    for destination in (*actions.values(), *relays.values()):
        assert local_part(destination) is not None
    assert streams == {"displayPicture": f"{BASE}/v1/streams/users/42/display-picture"}


@given(st.integers(1, 2**53 - 2))
def test_links_name_the_user_whatever_the_id(number: int) -> None:
    user = replace(USER, id=number)
    mine, theirs = read(current_user(user, BASE)), read(other_user(user, BASE))
    assert mine["id"] == theirs["id"] == number
    topics, actions = mine["_topics"], theirs["_actions"]
    assert isinstance(topics, dict) and isinstance(actions, dict)
    assert topics["self"] == f"/topic/v1.users.{number}.self"
    assert actions["block"] == f"/application/v1/users/{number}.block"


def test_others_see_the_profile_and_none_of_the_users_own_doors() -> None:
    user = read(other_user(replace(USER, has_password=True, enabled=False), BASE))
    assert set(user) == {
        *("id", "type", "name", "displayName", "displayPictureUrl", "isGuest", "presence", "properties"),
        *("_relays", "_actions"),
    }
    relays, actions = user["_relays"], user["_actions"]
    assert isinstance(relays, dict) and isinstance(actions, dict)
    assert set(relays) == {"self", "channelMember"} and set(actions) == {"block", "delete"}


@pytest.mark.parametrize(
    ("online", "status", "shown"),
    [(True, None, "AVAILABLE"), (True, "BUSY", "BUSY"), (False, "BUSY", "UNAVAILABLE"), (False, None, "UNAVAILABLE")],
)
def test_presence(online: bool, status: str | None, shown: str) -> None:
    user = read(other_user(replace(USER, online=online, status=status), BASE))
    assert user["presence"] == {"status": shown, "online": online}


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=50))
def test_the_picture_of_a_name_is_under_that_name(name: str) -> None:
    url = picture_url(replace(USER, display_name=name), BASE)
    prefix = f"{BASE}/v1/picture/"
    assert url.startswith(prefix) and url.isascii()
    tail = url[len(prefix) :]
    assert unquote(tail) == name and not set(tail) & set("/?#<>\"' ")


@pytest.mark.parametrize(
    ("picture", "url"),
    [("/v1/files/x.png", f"{BASE}/v1/files/x.png"), ("https://img.example.test/x", "https://img.example.test/x")],
)
def test_pictures_of_ones_own(picture: str, url: str) -> None:
    assert picture_url(replace(USER, picture=picture), BASE) == url


def test_a_block_can_be_taken_back_by_its_own_link() -> None:
    record = read(blocked_record(USER, NOW, BASE))
    assert record["createdTime"] == "2026-03-01T12:30:15.123Z"
    assert record["_actions"] == {"delete": "/application/v1/user/blocked_records/42.delete"}


def test_times_are_utc_and_end_in_z() -> None:
    assert timestamp(NOW) == "2026-03-01T12:30:15.123Z"
    now = timestamp()
    assert now.endswith("Z") and abs(datetime.fromisoformat(now) - datetime.now(UTC)) < timedelta(seconds=5)
    assert UTC is UTC


@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 12), st.sampled_from(["", "displayName,desc"]))
def test_following_the_links_walks_the_list(total: int, size: int, number: int, sort: str) -> None:
    page: Page[int] = Page(range(0), total, PageRequest(number, size))
    resource = json.loads(relay_body(page_resource("users", [], page, "user/contacts", sort)))["resource"]
    pages = -(-total // size)
    assert resource["page"] == {
        "size": size,
        "totalElements": total,
        "totalElement": total,
        "totalPages": pages,
        "number": number,
    }
    links = {}
    for name, destination in resource["_relays"].items():
        local = local_part(destination)
        assert local is not None
        found = parse_list(local)
        assert found is not None
        base, part = found
        assert (base, part.size, part.sort) == ("user/contacts", size, sort)
        links[name] = part.page
    last = max(pages - 1, 0)
    assert links["self"] == number and links["first"] == 0 and links["last"] == last
    assert links.get("next") == (number + 1 if number + 1 < pages else None)
    assert links.get("prev") == (min(number - 1, last) if number > 0 else None)
