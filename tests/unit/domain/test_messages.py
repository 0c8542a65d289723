"""What may be in a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.domain.messages import MAX_TEXT, check_message
from offhook.errors import InvalidInput

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200)


@given(TEXTS)
def test_any_text_is_a_message_as_it_is(text: str) -> None:
    assert check_message(text, "message") == text


@pytest.mark.parametrize("text", [" ", "\n", "\t\r\n", "\x07", "x" * MAX_TEXT, "👋" * MAX_TEXT, "\uffff"])
def test_so_are_these(text: str) -> None:
    assert check_message(text, "message") == text


@pytest.mark.parametrize("text", ["", "x" * (MAX_TEXT + 1), "a\0b", "\ud800", "a\udfff", None, 5, b"bytes", ["x"]])
def test_and_these_are_none(text: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_message(text, "txt")
    assert refused.value.field == "txt" and "txt" in refused.value.message
