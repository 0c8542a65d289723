"""Applications: made, found by key, changed at once for everybody, deleted with all they have."""

from __future__ import annotations

import hashlib

import pytest
from tests.unit.services.support import resume, start, until

from offhook.codes import EndReason
from offhook.core import Core
from offhook.domain.accounts import Application, SessionPolicy, TokenPolicy, UserFilter, WebhookPolicy
from offhook.domain.sessions import SessionState
from offhook.errors import AccessDenied, Conflict, InvalidInput, NotFound
from offhook.services import applications as applications_module
from offhook.services.applications import ApplicationChanges


async def test_a_new_application_has_keys_and_a_secret_of_its_own(core: Core) -> None:
    first, first_secret = await core.applications.create("one")
    second, second_secret = await core.applications.create("two")
    assert first.domain == "one.local"
    assert len({first.api_key, second.api_key, first.client_id, second.client_id, first_secret, second_secret}) == 6
    # Only a hash of the secret is kept.
    assert first.client_secret_hash == hashlib.sha256(first_secret.encode()).hexdigest()
    assert core.applications.check_secret(first, first_secret)
    assert not core.applications.check_secret(first, second_secret)
    assert not core.applications.check_secret(first, first.client_secret_hash)
    assert (await core.applications.by_api_key(first.api_key)).id == first.id
    assert [application.name for application in await core.applications.list()] == ["default", "one", "two"]


@pytest.mark.parametrize(
    ("name", "domain", "api_key"),
    [("default", None, None), ("x", "example.com", None), ("x", None, "key-default")],
)
async def test_what_is_taken_is_a_conflict(core: Core, name: str, domain: str | None, api_key: str | None) -> None:
    with pytest.raises(Conflict):
        await core.applications.create(name, domain=domain, api_key=api_key)
    assert len(await core.applications.list()) == 1


@pytest.mark.parametrize(
    "api_key", ["short", "x" * 129, "with space", "quote'quote", "schlüssel", "a/b/c/d/e", "a\nb/c/d/e"]
)
async def test_keys_that_are_none(core: Core, api_key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await core.applications.create("x", api_key=api_key)
    assert caught.value.field == "api_key"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256])
async def test_names_that_are_none(core: Core, name: str) -> None:
    for attempt in (core.applications.create(name), core.applications.create("x", domain=name)):
        with pytest.raises(InvalidInput):
            await attempt


async def test_changes_are_known_at_the_next_look(core: Core) -> None:
    assert (await core.applications.by_api_key("key-default")).guests
    await core.applications.change("default", ApplicationChanges(guests=False))
    # The news goes to all nodes by a command, and to this one too.
    await until(lambda: "key-default" not in core.applications._by_key)
    assert not (await core.applications.by_api_key("key-default")).guests
    with pytest.raises(AccessDenied):
        await start(core, "jane", await core.applications.by_api_key("key-default"))


async def test_changing_one_thing_leaves_the_rest(core: Core) -> None:
    everything = ApplicationChanges(
        guests=False,
        sessions=SessionPolicy(max_sessions=3),
        tokens=TokenPolicy(("HS256",), secret="s" * 32),
        webhook=WebhookPolicy("https://hook.example.test/"),
    )
    made, _ = await core.applications.create("shop", changes=everything)
    assert (await core.applications.get("shop")) == made
    changed = await core.applications.change("shop", ApplicationChanges(guests=True))
    assert (changed.tokens, changed.webhook, changed.sessions) == (made.tokens, made.webhook, made.sessions)
    without = await core.applications.change("shop", ApplicationChanges(without=frozenset({"tokens"})))
    assert without.tokens is None and without.webhook == made.webhook
    with pytest.raises(NotFound):
        await core.applications.change("nothing", ApplicationChanges())


async def test_a_new_key_replaces_the_old_one_and_sessions_go_on(core: Core) -> None:
    before = await core.applications.by_api_key("key-default")
    stay = await start(core, "jane", before)
    after, secret = await core.applications.rotate_key("default")
    await until(lambda: "key-default" not in core.applications._by_key)
    with pytest.raises(AccessDenied):
        await core.applications.by_api_key("key-default")
    assert (await core.applications.by_api_key(after.api_key)).id == before.id
    assert core.applications.check_secret(after, secret)
    assert not core.applications.check_secret(before, secret)
    assert not stay.outlet.ends and core.hub.get(stay.id) is stay.live
    with pytest.raises(NotFound):
        await core.applications.rotate_key("nothing")


async def test_disabling_ends_all_sessions_and_refuses_new_ones(core: Core, application: Application) -> None:
    other, _ = await core.applications.create("other")
    stays, spared = [await start(core, f"user-{number}") for number in range(3)], await start(core, "jane", other)
    await core.applications.by_api_key("key-default")
    disabled = await core.applications.change("default", ApplicationChanges(enabled=False))
    await until(lambda: all(stay.outlet.ends for stay in stays))
    assert {end[0] for stay in stays for end in stay.outlet.ends} == {EndReason.APPLICATION_CLOSED}
    assert not spared.outlet.ends
    await until(lambda: "key-default" not in core.applications._by_key)
    for attempt in (
        core.applications.by_api_key("key-default"),
        core.applications.by_id(application.id),
        start(core, "jane", disabled),
    ):
        with pytest.raises(AccessDenied):
            await attempt
    await core.applications.change("default", ApplicationChanges(enabled=True))
    await until(lambda: "key-default" not in core.applications._by_key)
    assert (await core.applications.by_api_key("key-default")).enabled
    # What ended stays ended.
    with pytest.raises(AccessDenied):
        await resume(core, stays[0], "user-0")


async def test_deleting_takes_everything_along(core: Core, application: Application) -> None:
    stay = await start(core, "jane")
    other, _ = await core.applications.create("other")
    await core.users.create(other, "jane")
    await core.applications.by_api_key("key-default")
    await core.applications.delete("default")
    await until(lambda: bool(stay.outlet.ends))
    assert stay.outlet.ends == [(EndReason.APPLICATION_CLOSED, "")]
    await until(lambda: "key-default" not in core.applications._by_key)
    with pytest.raises(AccessDenied):
        await core.applications.by_api_key("key-default")
    for missing in (core.applications.get("default"), core.applications.by_id(application.id)):
        with pytest.raises(NotFound):
            await missing
    assert await core.users.count(application, UserFilter()) == 0
    assert await core.users.count(other, UserFilter()) == 1
    with pytest.raises(NotFound):
        await core.sessions.show(stay.id)
    with pytest.raises(NotFound):
        await core.applications.delete("default")


async def test_what_is_remembered_is_bounded(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applications_module, "MAX_CACHED", 3)
    for number in range(8):
        made, _ = await core.applications.create(f"app-{number}")
        assert (await core.applications.by_api_key(made.api_key)).id == made.id
        assert len(core.applications._by_key) <= 3
    # What does not exist is not remembered at all: nobody fills the memory by guessing.
    known = dict(core.applications._by_key)
    for number in range(20):
        with pytest.raises(AccessDenied):
            await core.applications.by_api_key(f"guess-{number}")
    assert core.applications._by_key == known


# --- by username --------------------------------------------------------------------------------------------------


async def test_a_whole_name_tells_its_application(core: Core, application: Application) -> None:
    shop, _ = await core.applications.create("shop", domain="Shop.Example.com")
    for name in ("jane@shop.example.com", "jane@SHOP.example.COM", "a@b@shop.example.com", "@shop.example.com"):
        assert await core.applications.by_username(name) == shop
    for name in ("jane@example.com", "jane", "jane@", "jane@nowhere.com", "shop.example.com@jane", ""):
        assert await core.applications.by_username(name) == application


async def test_names_that_tell_none_belong_to_the_only_application(core: Core) -> None:
    await core.applications.delete("default")
    await until(lambda: not core.applications._by_domain)
    for name in ("jane", "jane@example.com"):
        with pytest.raises(AccessDenied):
            await core.applications.by_username(name)
    shop, _ = await core.applications.create("shop")
    for name in ("jane", "jane@nowhere.com"):
        assert await core.applications.by_username(name) == shop
    # With a second one, nobody knows which is meant; and then there is a default again.
    await core.applications.create("other", domain="other.com")
    await until(lambda: not core.applications._by_domain)
    for name in ("jane", "jane@nowhere.com"):
        with pytest.raises(AccessDenied):
            await core.applications.by_username(name)
    default, _ = await core.applications.create("default", domain="nowhere.com")
    for name in ("jane", "jane@nowhere.com"):
        assert await core.applications.by_username(name) == default
    assert await core.applications.by_username("jane@shop.local") == shop


async def test_a_domain_of_a_new_application_is_its_own_at_once(core: Core, application: Application) -> None:
    assert await core.applications.by_username("jane@new.com") == application
    new, _ = await core.applications.create("new", domain="new.com")
    assert await core.applications.by_username("jane@new.com") == new


async def test_changes_are_known_by_username_too(core: Core, application: Application) -> None:
    names = ("jane", "jane@example.com")
    for name in names:
        assert await core.applications.by_username(name) == application
    assert set(core.applications._by_domain) == {"", "example.com"}
    changed = await core.applications.change("default", ApplicationChanges(guests=False))
    await until(lambda: not core.applications._by_domain)
    for name in names:
        assert await core.applications.by_username(name) == changed
    await core.applications.change("default", ApplicationChanges(enabled=False))
    await until(lambda: not core.applications._by_domain)
    for name in names * 2:
        with pytest.raises(AccessDenied, match="disabled"):
            await core.applications.by_username(name)


async def test_what_is_remembered_by_username_is_bounded(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applications_module, "MAX_CACHED", 3)
    for number in range(8):
        made, _ = await core.applications.create(f"app-{number}")
        assert (await core.applications.by_username(f"jane@{made.domain}")).id == made.id
        assert len(core.applications._by_domain) <= 3
    await until(lambda: not core.applications._by_domain)
    for number in range(20):
        await core.applications.by_username(f"jane@guess-{number}")
    assert not core.applications._by_domain


async def test_a_session_started_while_the_application_is_disabled_does_not_stay(core: Core) -> None:
    before = await core.applications.get("default")
    await core.applications.change("default", ApplicationChanges(enabled=False))
    # A connection that looked the application up just before still has the old value in its hands.
    try:
        stay = await start(core, "jane", before)
    except AccessDenied:
        return
    assert (await core.sessions.show(stay.id)).session.state is SessionState.ENDED
