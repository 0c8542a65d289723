"""Answers of the telephony resources, and of UC's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.kandy import answers, uc, wrappers
from offhook.protocols.kandy.status import StatusCode
from offhook.protocols.turn import TurnCredentials


def test_the_answer_to_a_subscription() -> None:
    found = answers.subscribed(
        subscription="/rest/version/1/user/alice@example.com/subscription/s-81f2",
        channel="/websocket/c-93ab77d0",
        expires=3600.0,
        services=("call", "Presence", "IM"),
        session_id="sess-55",
        client_correlator="abc123",
        turn=TurnCredentials("1700003600:alice", "b64.."),
    )
    assert found == (
        b'{"subscribeResponse":{"statusCode":0,'
        b'"subscription":"/rest/version/1/user/alice@example.com/subscription/s-81f2",'
        b'"subscriptionParams":{"expires":3600,"service":["call","Presence","IM"],"notificationType":"WebSocket",'
        b'"notificationChannel":"/websocket/c-93ab77d0","sessionId":"sess-55","clientCorrelator":"abc123",'
        b'"turnCredentials":{"username":"1700003600:alice","password":"b64.."}}}}'
    )


def test_what_was_not_asked_for_is_left_out() -> None:
    found = json.loads(
        answers.subscribed(subscription="/s", channel="/c", expires=90.5, services=(), status_code=StatusCode.PARTIAL)
    )
    assert found == {
        "subscribeResponse": {
            "statusCode": 2,
            "subscription": "/s",
            "subscriptionParams": {
                "expires": 90.5,
                "service": [],
                "notificationType": "WebSocket",
                "notificationChannel": "/c",
            },
        }
    }


def test_success() -> None:
    assert answers.done("presenceResponse") == b'{"presenceResponse":{"statusCode":0}}'
    assert answers.done("x", a=1, b=None, c=[{"d": None, "e": "f"}, None], g={"h": None}) == (
        b'{"x":{"statusCode":0,"a":1,"c":[{"e":"f"}],"g":{}}}'
    )
    assert answers.message_sent("m-1") == b'{"imResponse":{"statusCode":0,"messageId":"m-1"}}'
    assert answers.localization("en-US") == b'{"acceptLanguage":"en-US"}'
    assert answers.profile(first_name="Al") == b'{"userProfileData":{"statusCode":0,"firstName":"Al"}}'
    everything = answers.profile(first_name="Al", last_name="B", email_address="a@b", photo_url="https://x/y")
    assert json.loads(everything)["userProfileData"] == {
        "statusCode": 0,
        "firstName": "Al",
        "lastName": "B",
        "emailAddress": "a@b",
        "photoURL": "https://x/y",
    }


def test_errors_say_the_same_inside_the_wrapper_and_beside_it() -> None:
    assert answers.failed("subscribeResponse", StatusCode.BAD_CREDENTIALS, "Wrong password") == (
        b'{"subscribeResponse":{"statusCode":4,"reason":"Wrong password"},"statusCode":4,"reason":"Wrong password"}'
    )
    content = {"statusCode": 26, "reason": "Busy", "retryAfter": 1500, "field": "imRequest.toUrl"}
    found = answers.failed("imResponse", 26, "Busy", retry_after_ms=1500, field="imRequest.toUrl")
    assert json.loads(found) == {"imResponse": content, **content}


def test_errors_of_uc_have_its_own_form() -> None:
    assert answers.failed(wrappers.UC, StatusCode.BAD_CREDENTIALS, "Bad password", retry_after_ms=5) == (
        b'{"error":{"code":4,"human":"Bad password"}}'
    )


@given(st.text(st.characters(), max_size=30), st.text(st.characters(), max_size=30))
def test_no_text_breaks_an_answer(first: str, second: str) -> None:
    found = json.loads(answers.failed("imResponse", 5, first, field=second))
    assert found["reason"] == first.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    json.loads(answers.done("x", text=[first, {second: first}]))
    json.loads(
        answers.subscribed(
            subscription=first, channel=second, expires=60, services=(first, second), client_correlator=first
        )
    )
    json.loads(uc.failure(1, first))
    json.loads(uc.messages([uc.MessageRow("1", first, True, second, 1, (uc.Attachment(first, second, first),))]))


def test_tokens_of_uc() -> None:
    assert uc.tokens("AT1", "RT1", 3600) == (b'{"success":{"access_token":"AT1","refresh_token":"RT1","expires":3600}}')
    with pytest.raises(ValueError, match="300"):
        uc.tokens("AT1", "RT1", 300)


def test_a_message_sent_by_uc() -> None:
    assert uc.sent("m-5") == b'{"success":{"id":"m-5","attachments":[]}}'
    part = uc.Attachment("application/vdn.kandy.json", "https://offhook.example/v2.0/rm/file/h-1/", "part")
    assert json.loads(uc.sent("m-5", group=8, attachments=[part])) == {
        "success": {
            "id": "m-5",
            "attachments": [
                {
                    "mime": "application/vdn.kandy.json",
                    "url": "https://offhook.example/v2.0/rm/file/h-1/",
                    "name": "part",
                }
            ],
            "group": 8,
        }
    }
    assert uc.uploaded("h-1") == b'{"success":{"handle":"h-1"}}'
    assert uc.done() == b'{"success":{}}'


def test_threads_of_uc() -> None:
    rows: list[uc.DirectThread | uc.GroupThread] = [
        uc.DirectThread(7, "bob@example.com", 1_700_000_000, 1_700_000_000, "hi"),
        uc.GroupThread(8, (("carol@example.com", 1), ("bob@example.com", 2))),
    ]
    assert json.loads(uc.threads(rows)) == {
        "success": [
            {
                "handle": "bob@example.com",
                "thread": 7,
                "type": "internal",
                "lastreceived": 1_700_000_000,
                "lastpull": 1_700_000_000,
                "lastmsg": "hi",
            },
            {"handles": ["carol@example.com", "bob@example.com"], "members": [1, 2], "thread": 8, "type": "group"},
        ]
    }
    assert uc.threads([]) == b'{"success":[]}'


def test_messages_of_uc() -> None:
    rows = [
        uc.MessageRow("m-5", "hi bob", True, "alice@example.com", 1_700_000_000_000),
        uc.MessageRow("m-6", "", False, 2, 1_700_000_000_001, (uc.Attachment("a/b", "https://x/y/", "n"),)),
    ]
    assert uc.messages(rows) == (
        b'{"success":[{"id":"m-5","txt":"hi bob","attachments":[],"dir":0,"sender":"alice@example.com",'
        b'"when":1700000000000},{"id":"m-6","txt":"","attachments":[{"mime":"a/b","url":"https://x/y/","name":"n"}],'
        b'"dir":1,"sender":2,"when":1700000000001}]}'
    )
