"""Ids in paths and queries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.gateways.kandy.ids import message_event_id, parse_id, parse_message_id


@given(st.integers(0, 2**53))
def test_a_messages_id_is_read_as_it_was_told(message_id: int) -> None:
    assert parse_message_id(message_event_id(message_id)) == message_id
    assert parse_message_id(str(message_id)) == message_id


@given(st.text())
def test_any_text_is_an_id_or_none(text: str) -> None:
    assert parse_id(text) is None or text.isdigit()
    parse_message_id(text)


@pytest.mark.parametrize("text", ["", "m-", "-1", "1.0", "²", "٣", "9" * 19, "m-m-1", " 1"])
def test_what_is_no_id(text: str) -> None:
    assert parse_message_id(text) is None
