"""The StompX-Auth-Params header."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.chatkitty.auth_params import AuthParamsError, decode

objects = st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=20), st.integers(), st.none()), max_size=4)
latin = st.text(st.characters(max_codepoint=255), max_size=20)


@given(objects)
def test_raw_json(value: dict[str, object]) -> None:
    assert decode(json.dumps(value)) == value


@given(objects)
def test_base64_of_utf8(value: dict[str, object]) -> None:
    text = json.dumps(value, ensure_ascii=True)
    assert decode(base64.b64encode(text.encode()).decode()) == value


@given(latin)
def test_base64_of_latin_1_as_javascript_writes_it(value: str) -> None:
    raw = json.dumps({"password": value}, ensure_ascii=False).encode("latin-1")
    try:
        expected = json.loads(raw.decode())
    except UnicodeDecodeError:
        expected = {"password": value}
    assert decode(base64.b64encode(raw).decode()) == expected


@pytest.mark.parametrize("value", [None, "", "  ", "null", "{}"])
def test_nothing_is_an_empty_object(value: str | None) -> None:
    assert decode(value) == {}


@pytest.mark.parametrize("value", ["[1]", "7", '"x"', "true", "!!", "ab", "{", "bm90IGpzb24=", "[" * 5000, "é"])
def test_anything_else_is_refused(value: str) -> None:
    with pytest.raises(AuthParamsError):
        decode(value)


@given(st.text(max_size=200))
def test_nothing_but_the_documented_error_is_raised(value: str) -> None:
    with contextlib.suppress(AuthParamsError):
        assert isinstance(decode(value), dict)
