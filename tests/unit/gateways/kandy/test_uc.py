"""UC's tokens and messages."""

from __future__ import annotations

import time

import jwt
import pytest
from tests.unit.gateways.kandy.conftest import ALICE, BOB, PASSWORD, Kandy, Reply, basic

from offhook.domain.accounts import Application, TokenPolicy
from offhook.services.applications import ApplicationChanges

MAKE, REFRESH, REVOKE = "/v2.0/auth/mk_token", "/v2.0/auth/refresh_token", "/v2.0/auth/revoke_token"
SEND, THREADS, THREAD, DELETE = "/v2.0/rm/send", "/v2.0/rm/threads", "/v2.0/rm/thread", "/v2.0/rm/delete"
SECRET = "a shared secret of more than 32 bytes"


def error(reply: Reply, status: int, code: int) -> str:
    """What a client shows of a failure."""
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    part = reply.part("error")
    assert part["code"] == code, reply
    human = part["human"]
    assert isinstance(human, str) and human
    return human


def rows(reply: Reply) -> list[dict[str, object]]:
    """A list that was asked for."""
    assert reply.status == 200, reply
    found = reply.json["success"]
    assert isinstance(found, list), reply
    return found


async def send(kandy: Kandy, token: str, to: str, text: str) -> str:
    """Sends a message, which must succeed. Returns its id."""
    reply = await kandy.get(SEND, to=to, txt=text, token=token)
    assert reply.status == 200, reply
    assert reply.part("success")["attachments"] == []
    return str(reply.part("success")["id"])


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_a_password_gets_tokens(kandy: Kandy) -> None:
    success = (await kandy.get(MAKE, basic(ALICE), refresh="y")).part("success")
    assert set(success) == {"access_token", "refresh_token", "expires"}
    assert success["expires"] == 3600


@pytest.mark.parametrize(("wanted", "given"), [("7200", 7200), ("1", 600), ("9" * 30, 3600), ("undefined", 3600)])
async def test_a_token_lives_as_long_as_is_wanted_and_reasonable(kandy: Kandy, wanted: str, given: int) -> None:
    assert (await kandy.get(MAKE, basic(ALICE), expires=wanted)).part("success")["expires"] == given


async def test_a_password_wins_over_a_stale_token(kandy: Kandy) -> None:
    assert (await kandy.get(MAKE, basic(ALICE), refresh="y", token="stale")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic(ALICE, "wrong"),
        basic("nobody@example.com"),
        {"authorization": "basic ?"},
        {"authorization": "Bearer x"},
    ],
)
async def test_a_bad_sign_in_has_a_text(kandy: Kandy, headers: dict[str, str]) -> None:
    error(await kandy.get(MAKE, headers, refresh="y"), 401, 4)


async def test_who_guesses_is_locked_out(kandy: Kandy) -> None:
    reply = await kandy.get(MAKE, basic(ALICE, "0"))
    for guess in range(30):
        reply = await kandy.get(MAKE, basic(ALICE, str(guess)))
        if reply.status != 401:
            break
    error(reply, 429, 63)
    assert "retry-after" in reply.headers


async def test_either_token_is_refreshed(kandy: Kandy) -> None:
    success = (await kandy.get(MAKE, basic(ALICE), refresh="y")).part("success")
    for name in ("access_token", "refresh_token"):
        fresh = (await kandy.get(REFRESH, token=str(success[name]), expires="1200")).part("success")
        assert fresh["expires"] == 1200
        assert rows(await kandy.get(THREADS, token=str(fresh["access_token"]))) == []


async def test_a_bad_token_is_not_refreshed(kandy: Kandy) -> None:
    error(await kandy.get(REFRESH, token="stale"), 401, 4)
    error(await kandy.get(REFRESH), 401, 4)


async def test_what_is_revoked_is_good_for_nothing(kandy: Kandy) -> None:
    success = (await kandy.get(MAKE, basic(ALICE), refresh="y")).part("success")
    access, refresh = str(success["access_token"]), str(success["refresh_token"])
    other = await kandy.log_in(ALICE)
    assert (await kandy.get(REVOKE, token=access)).json == {"success": {}}
    error(await kandy.get(THREADS, token=access), 200, 4)
    error(await kandy.get(REFRESH, token=refresh), 401, 4)
    assert rows(await kandy.get(THREADS, token=other)) == []
    for query in ({"token": "stale"}, {}):
        error(await kandy.get(REVOKE, None, **query), 401, 4)


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_a_conversation_as_its_two_users_see_it(kandy: Kandy) -> None:
    alice, bob = await kandy.log_in(ALICE), await kandy.log_in(BOB)
    first = await send(kandy, alice, BOB, "hi bob & all+")
    second = await send(kandy, bob, f"sip:{ALICE}", "hi alice")
    (seen,) = rows(await kandy.get(THREADS, type="im", token=alice))
    assert seen["handle"] == BOB and seen["type"] == "internal" and seen["lastmsg"] == "hi alice"
    received = seen["lastreceived"]
    assert isinstance(received, int) and abs(received - time.time()) < 60
    thread = seen["thread"]
    assert rows(await kandy.get(THREAD, id=str(thread), token=alice)) == [seen]
    for name in (str(thread), BOB):
        listed = rows(await kandy.get(f"{THREAD}/{name}", type="internal", max="50", token=alice))
        assert [(row["id"], row["txt"], row["dir"], row["sender"]) for row in listed] == [
            (first, "hi bob & all+", 1, ALICE),
            (second, "hi alice", 0, BOB),
        ]
        when = listed[0]["when"]
        assert isinstance(when, int) and abs(when / 1000 - time.time()) < 60
    (newest,) = rows(await kandy.get(f"{THREAD}/{thread}", max="1", token=alice))
    assert newest["id"] == second


async def test_one_message_by_the_senders_name(kandy: Kandy) -> None:
    alice, bob = await kandy.log_in(ALICE), await kandy.log_in(BOB)
    name = await send(kandy, alice, BOB, "one")
    await send(kandy, alice, BOB, "two")
    for wanted in (name, name.removeprefix("m-")):
        (row,) = rows(await kandy.get(f"{THREAD}/{ALICE}", type="internal", id=wanted, token=bob))
        assert (row["id"], row["txt"], row["attachments"]) == (name, "one", [])


async def test_what_one_user_deletes_the_other_keeps(kandy: Kandy) -> None:
    alice, bob = await kandy.log_in(ALICE), await kandy.log_in(BOB)
    first = await send(kandy, alice, BOB, "one")
    await send(kandy, alice, BOB, "two")
    (row,) = rows(await kandy.get(THREADS, token=alice))
    assert (await kandy.get(f"{DELETE}/{row['thread']}/{first}", type="internal", token=alice)).json == {"success": {}}
    assert [row["txt"] for row in rows(await kandy.get(f"{THREAD}/{BOB}", token=alice))] == ["two"]
    assert (await kandy.get(f"{DELETE}/{BOB}", token=alice)).json == {"success": {}}
    assert rows(await kandy.get(THREADS, token=alice)) == []
    assert len(rows(await kandy.get(f"{THREAD}/{ALICE}", token=bob))) == 2


async def test_a_user_whose_name_is_a_number(kandy: Kandy, application: Application) -> None:
    await kandy.core.users.create(application, "15551234")
    alice = await kandy.log_in(ALICE)
    await send(kandy, alice, "tel:15551234", "hello")
    assert [row["txt"] for row in rows(await kandy.get(f"{THREAD}/15551234", token=alice))] == ["hello"]


@pytest.mark.parametrize("kind", ["sms", "group"])
async def test_there_are_no_other_kinds_of_conversations(kandy: Kandy, kind: str) -> None:
    alice = await kandy.log_in(ALICE)
    await send(kandy, alice, BOB, "hi")
    assert rows(await kandy.get(THREADS, type=kind, touched="Sat-1-2", token=alice)) == []


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        (SEND, {"to": "nobody@example.com", "txt": "hi"}, 42),
        (SEND, {"to": BOB}, 37),
        (SEND, {"to": BOB, "txt": "x" * 16_385}, 37),
        (SEND, {"txt": "hi"}, 37),
        (SEND, {"to": "x" * 256, "txt": "hi"}, 37),
        (SEND, {"tos": [BOB, ALICE], "txt": "hi"}, 35),
        (SEND, {"to": BOB, "txt": "hi", "attach": "h-1"}, 35),
        (THREAD, {}, 42),
        (THREAD, {"id": "999"}, 42),
        (f"{THREAD}/999", {}, 42),
        (f"{THREAD}/{BOB}", {"id": "m-1"}, 42),
        (f"{THREAD}/{BOB}", {"id": "none"}, 42),
        (f"{DELETE}/undefined", {}, 42),
        (f"{DELETE}/999/m-1", {}, 42),
        (f"{DELETE}/999/x", {}, 42),
    ],
)
async def test_a_failure_comes_with_the_status_of_success(
    kandy: Kandy, path: str, query: dict[str, str | list[str]], code: int
) -> None:
    token = await kandy.log_in(ALICE)
    error(await kandy.get(path, None, **query, token=token), 200, code)


async def test_several_times_the_same_receiver_is_one(kandy: Kandy) -> None:
    token = await kandy.log_in(ALICE)
    assert (await kandy.get(SEND, tos=[BOB, f"sip:{BOB}"], txt="hi", token=token)).part("success")["id"]


async def test_somebody_elses_conversation_is_unknown(kandy: Kandy, application: Application) -> None:
    alice = await kandy.log_in(ALICE)
    name = await send(kandy, alice, BOB, "secret")
    (row,) = rows(await kandy.get(THREADS, token=alice))
    await kandy.core.users.create(application, "eve@example.com", password=PASSWORD)
    eve = await kandy.log_in("eve@example.com")
    for path in (f"{THREAD}/{row['thread']}", f"{DELETE}/{row['thread']}", f"{DELETE}/{row['thread']}/{name}"):
        error(await kandy.get(path, token=eve), 200, 42)
    assert len(rows(await kandy.get(f"{THREAD}/{BOB}", token=alice))) == 1


async def test_a_block_stands_between(kandy: Kandy, application: Application) -> None:
    alice = await kandy.core.users.by_name(application, ALICE)
    bob = await kandy.core.users.by_name(application, BOB)
    await kandy.core.users.block(application, bob.id, alice.id)
    error(await kandy.get(SEND, to=BOB, txt="hi", token=await kandy.log_in(ALICE)), 200, 27)


@pytest.mark.parametrize("path", [SEND, THREADS, THREAD, f"{THREAD}/7", f"{DELETE}/7"])
@pytest.mark.parametrize("token", [None, "stale", "a.b.c", "e30.e30.e30"])
async def test_a_bad_token_is_told_as_quietly(kandy: Kandy, path: str, token: str | None) -> None:
    query = {} if token is None else {"token": token}
    error(await kandy.get(path, None, to=BOB, txt="hi", **query), 200, 4)


async def test_a_changed_password_ends_the_tokens(kandy: Kandy, application: Application) -> None:
    token = await kandy.log_in(ALICE)
    await kandy.core.users.set_password(application, ALICE, "another one")
    error(await kandy.get(THREADS, token=token), 200, 4)


async def test_nothing_can_be_attached(kandy: Kandy) -> None:
    token = await kandy.log_in(ALICE)
    reply = await kandy.post(f"/v2.0/rm/upload?token={token}", b"x" * 100_000, {"content-type": "application/json"})
    error(reply, 200, 35)
    error(await kandy.get("/v2.0/rm/file/h-1/", token=token), 403, 35)
    error(await kandy.post("/v2.0/rm/upload", b""), 200, 4)


# --- other credentials ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["sub", "email"])
async def test_the_applications_own_tokens_tell_whose_they_are(kandy: Kandy, claim: str) -> None:
    policy = TokenPolicy(algorithms=("HS256",), secret=SECRET, username_claim=claim)
    await kandy.core.applications.change("default", ApplicationChanges(tokens=policy))
    claims = {claim: ALICE, "exp": int(time.time()) + 60}
    good, forged = jwt.encode(claims, SECRET), jwt.encode(claims, SECRET.upper())
    assert rows(await kandy.get(THREADS, token=good)) == []
    assert rows(await kandy.get(THREADS, {"authorization": f"Bearer {good}"})) == []
    error(await kandy.get(THREADS, token=forged), 200, 4)


async def test_a_password_will_do(kandy: Kandy) -> None:
    assert rows(await kandy.get(THREADS, basic(ALICE), token="stale")) == []
    error(await kandy.get(THREADS, {"x-session": "7.x"}), 200, 4)
