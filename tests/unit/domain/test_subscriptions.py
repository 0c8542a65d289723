"""Subscriptions: what is granted, changed, watched and owed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.domain import subscriptions as terms
from offhook.domain.subscriptions import (
    ANONYMOUS_SERVICES,
    CALL,
    DEFAULT_LIFETIME,
    IM,
    MAX_LIFETIME,
    MAX_SPELLINGS,
    MAX_WATCHED,
    MIN_LIFETIME,
    PRESENCE,
    SERVICES,
    Owed,
    Product,
    Subscription,
    user_of,
)
from offhook.errors import InvalidInput

PLAIN = Subscription(1, Product.LINK, (CALL, PRESENCE, IM), 3600.0)
NAMES = st.sampled_from(["bob@example.com", "sip:bob@example.com", "carol", "tel:+1", "josé", "sip:", "a:b"])
LISTS = st.lists(NAMES, max_size=5)
SOME_SERVICES = st.lists(st.sampled_from([*sorted(SERVICES), "callMe", "MWI", "im", ""]), max_size=8)


@given(SOME_SERVICES)
def test_granted_is_what_there_is_in_the_order_of_the_asking(wanted: list[str]) -> None:
    if not SERVICES.intersection(wanted):
        with pytest.raises(InvalidInput):
            terms.granted(wanted, SERVICES)
        return
    services = terms.granted(wanted, SERVICES)
    assert set(services) == SERVICES.intersection(wanted) and len(services) == len(set(services))
    assert sorted(services, key=wanted.index) == list(services)


def test_letter_case_is_part_of_a_services_name_and_callers_have_their_own() -> None:
    with pytest.raises(InvalidInput):
        terms.granted(["im", "presence", "CALL", "callMe"], SERVICES)
    assert terms.granted(["call", "callMe"], ANONYMOUS_SERVICES) == ("callMe",)


@given(st.one_of(st.none(), st.floats(allow_nan=False)))
def test_a_lifetime_is_within_its_bounds(wanted: float | None) -> None:
    given_ = terms.lifetime(wanted)
    assert MIN_LIFETIME <= given_ <= MAX_LIFETIME
    if wanted is None:
        assert given_ == DEFAULT_LIFETIME
    elif MIN_LIFETIME <= wanted <= MAX_LIFETIME:
        assert given_ == wanted


def test_a_lifetime_that_is_no_number_is_still_one_in_the_end() -> None:
    assert MIN_LIFETIME <= terms.lifetime(float("nan")) <= MAX_LIFETIME


def test_a_change_keeps_what_stays_and_drops_what_was_given_up() -> None:
    before = terms.watching(replace(PLAIN, backlog=7, im_since=70), ["bob", "carol"], 5)
    after = terms.changed(before, (IM, PRESENCE), 60.0, 99, 990)
    assert (after.backlog, after.im_since) == (7, 70)
    assert (after.watched, after.owed) == (before.watched, before.owed)
    assert (after.services, after.lifetime, after.version) == ((IM, PRESENCE), 60.0, before.version + 1)
    without = terms.changed(after, (CALL,), 60.0, 99, 990)
    assert (without.watched, without.owed) == ((), ())
    again = terms.changed(without, (IM, PRESENCE), 60.0, 99, 990)
    assert (again.backlog, again.im_since, again.watched, again.owed) == (99, 990, (), ())
    assert not without.announces and again.announces


@given(LISTS, LISTS, LISTS)
def test_watching_and_stopping_is_a_set_with_an_order(first: list[str], second: list[str], stopped: list[str]) -> None:
    one = terms.watching(PLAIN, first, 5)
    both = terms.watching(one, second, 6)
    rest = terms.unwatching(both, stopped)
    assert list(both.watched) == list(dict.fromkeys([*first, *second]))
    assert {owed.name for owed in both.owed} == set(both.watched)
    assert list(rest.watched) == [name for name in both.watched if name not in stopped]
    assert not {owed.name for owed in rest.owed} & set(stopped)
    assert PLAIN.version < one.version < both.version < rest.version
    # What was asked for again is another question.
    for name in second:
        assert [owed.asked for owed in both.owed if owed.name == name] == [both.version]


def test_changes_are_told_from_the_first_watch_on() -> None:
    one = terms.watching(PLAIN, ["bob"], 5)
    more = terms.watching(one, ["carol"], 9)
    fewer = terms.unwatching(more, ["bob"])
    assert [each.watched_since for each in (PLAIN, one, more, fewer)] == [None, 5, 5, 5]
    nobody = terms.unwatching(fewer, ["carol"])
    assert terms.watching(nobody, ["bob"], 12).watched_since == 12


@given(LISTS, LISTS)
def test_what_is_owed_is_owed_until_just_that_was_got(first: list[str], second: list[str]) -> None:
    one = terms.owing(PLAIN, first)
    two = terms.owing(one, second)
    got = terms.shown(two, one.owed)
    # What was asked for again since is still owed.
    assert {owed.name for owed in got.owed} == set(second)
    assert got.version == two.version
    assert terms.shown(got, two.owed).owed == ()
    assert terms.shown(two, [Owed("nobody", 1)]) == two
    assert two.watched == ()


@given(LISTS, LISTS)
def test_who_lost_track_is_owed_all_that_is_watched_and_whatever_else(watched: list[str], got: list[str]) -> None:
    before = terms.owing(terms.shown(watching := terms.watching(PLAIN, watched, 5), watching.owed), got)
    after = terms.owing(before, before.watched, 2 * MAX_WATCHED)
    assert {owed.name for owed in after.owed} == set(watched) | set(got)
    assert {owed.asked for owed in after.owed if owed.name in watched} <= {after.version}
    assert after.version > before.version and after.watched == before.watched


def test_nobody_watches_or_asks_for_too_many() -> None:
    names = [f"user-{number}" for number in range(MAX_WATCHED)]
    full = terms.watching(PLAIN, names, 5)
    assert terms.watching(full, names[:10], 5).watched == full.watched
    with pytest.raises(InvalidInput):
        terms.watching(full, ["one more"], 5)
    with pytest.raises(InvalidInput):
        terms.owing(full, ["one more"])
    asked = terms.owing(replace(full, owed=()), ["x", "y"])
    assert len(terms.owing(asked, asked.watched, 2 * MAX_WATCHED).owed) == MAX_WATCHED + 2


def test_nobody_watches_one_user_under_too_many_names() -> None:
    names = [f"sip:bob;x={number}" for number in range(MAX_SPELLINGS + 1)]
    terms.watching(PLAIN, names[:-1], 5)
    with pytest.raises(InvalidInput):
        terms.watching(PLAIN, names, 5)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("bob@example.com", "bob@example.com"),
        ("sip:bob@example.com", "bob@example.com"),
        ("SIPS:bob@example.com;transport=tls", "bob@example.com"),
        ("tel:+491234;phone-context=x", "+491234"),
        (" bob ", "bob"),
        ("sip: bob ", "bob"),
        ("a:b", "a:b"),
        ("bob;x", "bob;x"),
        ("sip:", ""),
        ("sip:sip:bob", "sip:bob"),
    ],
)
def test_the_user_of_an_address(address: str, name: str) -> None:
    assert user_of(address) == name


@given(st.text(max_size=30))
def test_any_address_has_a_user(address: str) -> None:
    plain = user_of(address)
    assert plain == plain.strip() and plain in address
    if ":" not in address and ";" not in address:
        assert user_of(f"sip:{address}") == plain
