"""Users: what is refused, what ends their sessions, and who hears of what."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.services.support import resume, sessions_of, start, until

from offhook.codes import EndReason
from offhook.core import Core
from offhook.domain.accounts import Application, UserChanges, UserFilter
from offhook.domain.events import Origin, PresenceChanged, UserDeleted, UserUpdated
from offhook.domain.values import JsonObject, PageRequest
from offhook.errors import AccessDenied, Conflict, InvalidInput, NotFound

WRONG_NAMES = ["", "   ", "a\nb", "a\0b", "a\x1b[31mb", "a\x85b", "x" * 256, "\ud800"]


@pytest.mark.parametrize("name", WRONG_NAMES, ids=ascii)
async def test_names_that_are_none(core: Core, application: Application, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await core.users.create(application, name)
    assert caught.value.field == "name"
    with pytest.raises(InvalidInput):
        await core.users.create(application, "jane", display_name=name)
    assert await core.users.count(application, UserFilter()) == 0


@pytest.mark.parametrize(
    "name", ["jane:doe", "jane@example.com", "日本", "x" * 255, "<b>", "a/b", "%2f", "' OR 1=1 --"]
)
async def test_any_other_name_is_welcome(core: Core, application: Application, name: str) -> None:
    made = await core.users.create(application, name)
    assert (await core.users.by_name(application, name)).id == made.id


async def test_of_many_who_want_a_name_one_gets_it(core: Core, application: Application) -> None:
    results = await asyncio.gather(*(core.users.create(application, "jane") for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 7
    other, _ = await core.applications.create("other")
    assert (await core.users.create(other, "jane")).application_id == other.id


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (UserChanges(display_name=""), "displayName"),
        (UserChanges(display_name="a\rb"), "displayName"),
        (UserChanges(picture="javascript:alert(1)"), "displayPictureUrl"),
        (UserChanges(picture="data:text/html,x"), "displayPictureUrl"),
        (UserChanges(picture="https://" + "x" * 3000), "displayPictureUrl"),
        (UserChanges(status="x" * 65), "presence.status"),
        (UserChanges(status="\x07"), "presence.status"),
        (UserChanges(properties={"x": "y" * 17_000}), "properties"),
        (UserChanges(properties={"x": float("nan")}), "properties"),
    ],
)
async def test_changes_that_cannot_be(core: Core, application: Application, changes: UserChanges, field: str) -> None:
    stay = await start(core, "jane")
    with pytest.raises(InvalidInput) as caught:
        await core.users.change(application, stay.live.user_id, changes)
    assert caught.value.field == field
    assert stay.outlet.events == []
    assert await core.users.get(application, stay.live.user_id) == stay.live.user


async def test_properties_that_are_nested_too_deeply(core: Core, application: Application) -> None:
    user = await core.users.create(application, "jane")
    deep: JsonObject = {}
    for _ in range(20):
        deep = {"x": deep}
    with pytest.raises(InvalidInput):
        await core.users.change(application, user.id, UserChanges(properties=deep))


async def test_who_hears_of_which_change(core: Core, application: Application) -> None:
    jane, witness = await start(core, "jane"), await start(core, "john")

    async def heard(changes: UserChanges, origin: Origin | None = None) -> list[type]:
        witness.outlet.heard.clear()
        await core.users.change(application, jane.live.user_id, changes, origin)
        return [type(event) for event in witness.outlet.events]

    assert await heard(UserChanges(display_name="Jane")) == [UserUpdated]
    assert await heard(UserChanges(status="BUSY")) == [PresenceChanged]
    assert await heard(UserChanges(status="AWAY", display_name="J")) == [PresenceChanged, UserUpdated]
    assert await heard(UserChanges(display_name="J")) == []
    before = len(jane.outlet.heard)
    # The user's own client waits for an answer, even if there is nothing to tell anybody else.
    assert await heard(UserChanges(display_name="J"), Origin(jane.id, "receipt-1")) == []
    assert [p.origin for p in jane.outlet.heard[before:]] == [Origin(jane.id, "receipt-1")]


async def test_a_changed_password_ends_every_session(core: Core, application: Application) -> None:
    await core.users.create(application, "jane", password="old")
    stays = [await start(core, "jane", password="old") for _ in range(3)]
    bystander = await start(core, "john")
    user = await core.users.set_password(application, "jane", "new")
    assert user.has_password
    await until(lambda: all(stay.outlet.ends for stay in stays))
    assert {end[0] for stay in stays for end in stay.outlet.ends} == {EndReason.CREDENTIALS_CHANGED}
    assert not bystander.outlet.ends
    with pytest.raises(AccessDenied):
        await resume(core, stays[0], "jane")
    with pytest.raises(AccessDenied):
        await start(core, "jane", password="old")
    await start(core, "jane", password="new")
    assert not (await core.users.set_password(application, "jane", None)).has_password
    # Without a password the name is any guest's again, where guests are welcome.
    await start(core, "jane")
    for name, password in (("nobody", "x"), ("jane", "")):
        with pytest.raises((NotFound, InvalidInput)):
            await core.users.set_password(application, name, password)


async def test_a_password_changed_during_a_start_wins(core: Core, application: Application) -> None:
    await core.users.create(application, "jane", password="old")
    starting = asyncio.gather(*(start(core, "jane", password="old") for _ in range(3)), return_exceptions=True)
    await core.users.set_password(application, "jane", "new")
    await starting
    assert await sessions_of(core, "jane", live=True) == []


async def test_a_disabled_user_is_out_until_enabled(core: Core, application: Application) -> None:
    stay, witness = await start(core, "jane"), await start(core, "john")
    assert not (await core.users.set_enabled(application, "jane", False)).enabled
    await until(lambda: bool(stay.outlet.ends))
    assert stay.outlet.ends == [(EndReason.USER_DISABLED, "")]
    assert [event.user.online for event in witness.outlet.events] == [False]
    with pytest.raises(AccessDenied):
        await start(core, "jane")
    assert (await core.users.set_enabled(application, "jane", True)).enabled
    await start(core, "jane")
    with pytest.raises(NotFound):
        await core.users.set_enabled(application, "nobody", False)


async def test_a_deleted_user_is_gone_with_everything_but_the_ledger(core: Core, application: Application) -> None:
    jane, john = await start(core, "jane"), await start(core, "john")
    await core.users.block(application, john.live.user_id, (await core.users.create(application, "jack")).id)
    await core.users.block(application, jane.live.user_id, john.live.user_id)
    await core.users.unblock(application, jane.live.user_id, john.live.user_id)
    await until(lambda: not john.live.blocked & {jane.live.user_id})
    john.outlet.heard.clear()
    await core.users.delete(application, jane.live.user_id)
    await until(lambda: bool(jane.outlet.ends))
    assert jane.outlet.ends == [(EndReason.USER_DELETED, "")]
    assert type(jane.outlet.events[-1]) is UserDeleted
    assert [type(event) for event in john.outlet.events] == [PresenceChanged, UserDeleted]
    assert not john.outlet.events[-1].user.online
    with pytest.raises(NotFound):
        await core.users.get(application, jane.live.user_id)
    with pytest.raises(NotFound):
        await core.users.delete(application, jane.live.user_id)
    (session,) = await sessions_of(core, "jane")
    assert session.end_reason is EndReason.USER_DELETED
    again = await start(core, "jane")
    assert again.live.user_id != jane.live.user_id
    with pytest.raises(AccessDenied):
        await resume(core, jane, "jane")


async def test_a_deleted_users_blocks_are_gone(core: Core, application: Application) -> None:
    jane, john = [await core.users.create(application, name) for name in ("jane", "john")]
    await core.users.block(application, john.id, jane.id)
    await core.users.delete(application, jane.id)
    assert (await core.users.blocks(john.id, PageRequest())).total == 0


async def test_blocks_that_cannot_be(core: Core, application: Application) -> None:
    jane, john = [await core.users.create(application, name) for name in ("jane", "john")]
    stranger = await core.users.create((await core.applications.create("other"))[0], "stranger")
    with pytest.raises(InvalidInput):
        await core.users.block(application, jane.id, jane.id)
    for user_id in (999, stranger.id):
        with pytest.raises(NotFound):
            await core.users.block(application, jane.id, user_id)
    with pytest.raises(NotFound):
        await core.users.unblock(application, jane.id, john.id)
    for _ in range(2):
        await core.users.block(application, jane.id, john.id)
    assert (await core.users.blocks(jane.id, PageRequest())).total == 1
    with pytest.raises(NotFound):
        await core.users.get(application, jane.id, viewer=john.id)
    with pytest.raises(NotFound):
        await core.users.get(application, john.id, viewer=jane.id)


async def test_users_of_another_application_are_unknown(core: Core, application: Application) -> None:
    other, _ = await core.applications.create("other")
    stranger = await core.users.create(other, "stranger", password="x")
    for attempt in (
        core.users.get(application, stranger.id),
        core.users.by_name(application, "stranger"),
        core.users.change(application, stranger.id, UserChanges(display_name="x")),
        core.users.set_enabled(application, "stranger", False),
        core.users.set_password(application, "stranger", None),
        core.users.delete(application, stranger.id),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert await core.users.get(other, stranger.id) == stranger
