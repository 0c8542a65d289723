"""Presence: what is chosen is what is seen, whatever the words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.domain.accounts import AVAILABLE, User
from offhook.domain.presence import NOT_THERE, Activity, Presence, choosing, presence_of

BOB = User(1, 1, "bob", "Bob", datetime(2026, 1, 1, tzinfo=UTC), online=True)


def having_chosen(presence: Presence, user: User = BOB) -> User:
    changes = choosing(presence)
    assert changes.status is not None and changes.closed is not None and changes.note is not None
    return replace(user, status=changes.status, closed=changes.closed, note=changes.note)


@given(st.booleans(), st.sampled_from(Activity), st.text(max_size=20))
def test_what_is_chosen_is_seen(is_open: bool, activity: Activity, note: str) -> None:
    chosen = Presence(is_open, activity, note)
    user = having_chosen(chosen)
    seen = presence_of(user)
    if activity is Activity.OTHER and not note:
        assert replace(seen, note="") == chosen
    else:
        assert seen == chosen
    # Choosing what is seen changes nothing any more.
    assert presence_of(having_chosen(seen, user)) == seen
    assert presence_of(replace(user, online=False)) == NOT_THERE


def test_who_chose_nothing_is_there_and_active() -> None:
    assert presence_of(BOB) == Presence(True, Activity.ACTIVE)
    assert presence_of(None) == presence_of(replace(BOB, online=False)) == NOT_THERE


@pytest.mark.parametrize(
    ("status", "activity", "note"),
    [
        (AVAILABLE, Activity.ACTIVE, ""),
        ("available", Activity.ACTIVE, ""),
        ("Online", Activity.ACTIVE, ""),
        ("BUSY", Activity.BUSY, ""),
        ("do not disturb", Activity.BUSY, ""),
        ("on-the-phone", Activity.ON_THE_PHONE, ""),
        ("On the phone", Activity.ON_THE_PHONE, ""),
        ("unknown", Activity.UNKNOWN, ""),
        ("In a meeting", Activity.OTHER, "In a meeting"),
        ("ß", Activity.OTHER, "ß"),
    ],
)
def test_a_status_in_free_words_is_an_activity_or_the_note(status: str, activity: Activity, note: str) -> None:
    assert presence_of(replace(BOB, status=status)) == Presence(True, activity, note)
    assert presence_of(replace(BOB, status=status, closed=True)).open is False
    assert presence_of(replace(BOB, status=status, note="back at 3")) == Presence(True, activity, "back at 3")
