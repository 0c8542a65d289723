"""Paths."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.kandy.paths import (
    Address,
    Resource,
    channel_path,
    fits_path,
    methods,
    parse_channel,
    parse_path,
    subscription_path,
)
from offhook.protocols.kandy.wrappers import UC, failure_wrapper, wrapper

ALICE = "alice@example.com"
B = f"/rest/version/1/user/{ALICE}"
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)

ROWS = [
    ("subscription", Resource.SUBSCRIPTION, (), "POST"),
    ("subscription/s-81f2", Resource.SUBSCRIPTION, ("s-81f2",), "PUT DELETE"),
    ("presence", Resource.PRESENCE, (), "POST"),
    ("presenceWatcher", Resource.PRESENCE_WATCHER, (), "POST"),
    ("instantmessage", Resource.INSTANT_MESSAGE, (), "POST"),
    ("directory", Resource.DIRECTORY, (), "GET"),
    ("userProfileData", Resource.USER_PROFILE, (), "GET"),
    ("addressbook", Resource.ADDRESS_BOOK, (), "GET"),
    ("addressbook/contacts/", Resource.CONTACTS, (), "POST"),
    ("addressbook/contacts/bobby", Resource.CONTACTS, ("bobby",), "GET PUT DELETE"),
    ("callControl", Resource.CALL_CONTROL, (), "POST"),
    ("callControl/", Resource.CALL_CONTROL, (), "POST"),
    ("callControl/callSessions/a1", Resource.CALL_CONTROL, ("a1",), "GET PUT DELETE"),
    ("calldisposition", Resource.CALL_DISPOSITION, (), "POST"),
    ("imrn", Resource.IMRN, (), "POST"),
    ("logHistory", Resource.LOG_HISTORY, (), "GET DELETE"),
    ("logRecord/17", Resource.LOG_RECORD, ("17",), "DELETE"),
    ("voicemail", Resource.VOICEMAIL, (), "GET"),
    ("eventSubscription", Resource.EVENT_SUBSCRIPTION, (), "POST"),
    ("eventSubscription/ev1", Resource.EVENT_SUBSCRIPTION, ("ev1",), "PUT DELETE"),
    ("clicktocall", Resource.CLICK_TO_CALL, (), "POST"),
    ("push/apple/devices/", Resource.PUSH_APPLE, (), "POST"),
    ("push/google/devices/", Resource.PUSH_GOOGLE, (), "POST"),
    ("push/google/devices/7", Resource.PUSH_GOOGLE, ("7",), "DELETE"),
]
UC_ROWS = [
    ("auth/mk_token", Resource.UC_MAKE_TOKEN, (), "GET"),
    ("auth/refresh_token", Resource.UC_REFRESH_TOKEN, (), "GET"),
    ("auth/revoke_token", Resource.UC_REVOKE_TOKEN, (), "GET"),
    ("rm/send", Resource.UC_SEND, (), "GET"),
    ("rm/threads", Resource.UC_THREADS, (), "GET"),
    ("rm/thread", Resource.UC_THREAD, (), "GET"),
    ("rm/thread/alice@example.com", Resource.UC_THREAD, (ALICE,), "GET"),
    ("rm/delete/7", Resource.UC_DELETE, ("7",), "GET"),
    ("rm/delete/7/m-5", Resource.UC_DELETE, ("7", "m-5"), "GET"),
    ("rm/upload", Resource.UC_UPLOAD, (), "POST"),
    ("rm/file/h-1/", Resource.UC_FILE, ("h-1",), "GET"),
]


@pytest.mark.parametrize(("tail", "resource", "names", "verbs"), ROWS)
@pytest.mark.parametrize("version", ["1", "v2.0", "latest"])
def test_resources_of_a_user(version: str, tail: str, resource: Resource, names: tuple[str, ...], verbs: str) -> None:
    address = Address(resource, ALICE, names)
    path = f"/rest/version/{version}/user/{ALICE}/{tail.rstrip('/')}"
    assert parse_path(path) == parse_path(path + "/") == address
    assert methods(address) == tuple(verbs.split())


@pytest.mark.parametrize(("tail", "resource", "names", "verbs"), UC_ROWS)
def test_resources_of_uc(tail: str, resource: Resource, names: tuple[str, ...], verbs: str) -> None:
    address = Address(resource, None, names)
    path = f"/v2.0/{tail.rstrip('/')}"
    assert parse_path(path) == parse_path(path + "/") == address
    assert methods(address) == tuple(verbs.split())


def test_the_locale_has_no_user() -> None:
    assert parse_path("/rest/version/1/localization") == Address(Resource.LOCALIZATION, None, ())
    assert methods(Address(Resource.LOCALIZATION, None, ())) == ("GET",)


def test_a_client_correlator_is_no_id() -> None:
    found = parse_path(f"{B}/subscription/clientCorrelator/abc123")
    assert found == Address(Resource.SUBSCRIPTION, ALICE, ("abc123",), correlator=True)
    assert methods(found) == ("PUT", "DELETE")


@pytest.mark.parametrize(
    ("segment", "user"),
    [
        ("alice@example.com", ALICE),
        ("alice%40example.com", ALICE),
        ("al%20ice", "al ice"),
        ("al ice", "al ice"),
        ("a+b", "a+b"),
        ("gr%C3%BC%C3%9Fe", "grüße"),
        ("grüße", "grüße"),
        ("a%2Fb", "a/b"),
        ("a%2fsubscription", "a/subscription"),
        ("50%off", "50%off"),
        ("%2e%2e", ".."),
    ],
)
def test_users_are_decoded_after_the_path_is_split(segment: str, user: str) -> None:
    assert parse_path(f"/rest/version/1/user/{segment}/presence") == Address(Resource.PRESENCE, user, ())


@given(texts, st.sampled_from(["s-1", "s 2", "s/3"]))
def test_any_encoded_user_round_trips(user: str, name: str) -> None:
    path = f"/rest/version/1/user/{quote(user, safe='')}/subscription/{quote(name, safe='')}"
    assert parse_path(path) == Address(Resource.SUBSCRIPTION, user, (name,))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "presence",
        "/rest",
        "/rest/version/1",
        "/rest/version/1/user",
        "/rest/version/1/user/alice",
        "/rest/version/1/user//presence",
        "/rest/version//user/alice/presence",
        "/rest/version/1/USER/alice/presence",
        "/rest/version/1/user/alice/Presence",
        "/rest/version/1/user/alice/callcontrol",
        "/rest/version/1/user/alice/InstantMessage",
        "/rest/version/1/user/alice/presence//",
        "/rest/version/1/user/alice/presence/x",
        "/rest/version/1/user/alice/callControl/other/a1",
        "/rest/version/1/user/alice/push/nokia/devices",
        "/rest/version/1/user/%ff/presence",
        "/rest/version/1/user/\udcff/presence",
        "/rest/version/1/user/alice/logRecord/%ff",
        "/rest/version/1/anonymous/subscription",
        "/rest/version/1/anonymous//callMe",
        "/rest/version/1/anonymous/acc/presence",
        "/v2.0",
        "/v2.0/rm",
        "/v1/rm/send",
        "/v2.0/rm/file",
    ],
)
def test_other_paths_name_nothing(path: str) -> None:
    assert parse_path(path) is None


@pytest.mark.parametrize("account", ["bob@example.com", "ACC/T+o=", "/lead//ing+/==", "a/subscription/x/callMe/y"])
def test_anonymous_accounts_may_hold_slashes(account: str) -> None:
    prefix = f"/rest/version/1/anonymous/{account}"
    assert parse_path(f"{prefix}/subscription") == Address(Resource.ANONYMOUS_SUBSCRIPTION, account, ())
    assert parse_path(f"{prefix}/callMe/") == Address(Resource.ANONYMOUS_CALL, account, ())
    session = parse_path(f"{prefix}/callMe/callSessions/a1")
    assert session == Address(Resource.ANONYMOUS_CALL, account, ("a1",))
    assert methods(session) == ("GET", "PUT", "DELETE")
    subscription = parse_path(f"{prefix}/subscription/s-1")
    assert subscription == Address(Resource.ANONYMOUS_SUBSCRIPTION, account, ("s-1",))


@given(texts, texts, st.booleans())
def test_the_path_of_a_subscription_leads_back_to_it(user: str, name: str, anonymous: bool) -> None:
    path = subscription_path(user, name, anonymous=anonymous)
    resource = Resource.ANONYMOUS_SUBSCRIPTION if anonymous else Resource.SUBSCRIPTION
    assert parse_path(path) == Address(resource, user, (name,))
    assert path.startswith("/") and "?" not in path and "#" not in path and path.isascii()


def test_the_path_of_a_subscription_reads_as_clients_know_it() -> None:
    assert subscription_path(ALICE, "s-81f2") == f"{B}/subscription/s-81f2"
    assert subscription_path(ALICE, "s", version="v2.0") == f"/rest/version/v2.0/user/{ALICE}/subscription/s"


@given(texts)
def test_channels_round_trip(channel: str) -> None:
    assert parse_channel(channel_path(channel)) == channel
    assert parse_channel(channel_path(channel) + "/") == channel


@pytest.mark.parametrize("path", ["/websocket", "/websocket/", "/websocket/a/b", "/Websocket/a", "/websocket/%ff", ""])
def test_other_channels_are_none(path: str) -> None:
    assert parse_channel(path) is None


@pytest.mark.parametrize("text", ["abc123", "a@b.c", "9f-_~", "a+b=c"])
def test_what_fits_into_a_path(text: str) -> None:
    assert fits_path(text)
    assert parse_path(f"{B}/subscription/clientCorrelator/{text}") == Address(
        Resource.SUBSCRIPTION, ALICE, (text,), correlator=True
    )


@pytest.mark.parametrize("text", ["", "a/b", "a?b", "a#b", "a%41", "a b", "ü", ".", "..", "a\n"])
def test_what_does_not_fit_into_a_path(text: str) -> None:
    assert not fits_path(text)


@given(
    st.text(st.characters(), max_size=60),
    st.sampled_from(["", "/", "/v2.0/rm/", "/rest/version/1/anonymous/", f"{B}/", "/websocket/"]),
)
def test_nothing_is_raised(text: str, prefix: str) -> None:
    found = parse_path(prefix + text)
    assert found is None or methods(found)
    parse_channel(prefix + text)
    fits_path(text)


def test_every_resource_has_a_wrapper() -> None:
    uc = {resource for resource in Resource if resource.name.startswith("UC_")}
    assert {resource for resource in Resource if wrapper(resource) == UC} == uc
    assert wrapper(Resource.SUBSCRIPTION) == "subscribeResponse"
    assert wrapper(Resource.VOICEMAIL) == "mwiresponse"


def test_errors_are_wrapped_like_the_rest_but_for_two() -> None:
    different = {
        (resource, method)
        for resource in Resource
        for method in ("GET", "POST", "PUT", "DELETE")
        if failure_wrapper(resource, method) != wrapper(resource)
    }
    assert different == {
        (Resource.LOG_HISTORY, "DELETE"),
        *((Resource.ANONYMOUS_CALL, method) for method in ("GET", "POST", "PUT", "DELETE")),
    }
    assert failure_wrapper(Resource.LOG_HISTORY, "DELETE") == "logRecord"
    assert failure_wrapper(Resource.ANONYMOUS_CALL, "POST") == "callControlResponse"
