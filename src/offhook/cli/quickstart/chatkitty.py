"""The quickstart of ChatKitty: starting and ending user sessions, as guest and with auth params."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from offhook.cli.quickstart.player import Player, Wrong, expect

if TYPE_CHECKING:
    from offhook.chatkitty import ChatKitty, ChatKittyError, CurrentUser, Session
    from offhook.cli.quickstart.place import Person, Place
    from offhook.client.transport import Transport


async def play(player: Player, place: Place, person: Person, transport: Transport) -> None:
    """Plays a guest's session, a refused and an authenticated one. The guest deletes itself in the end."""
    from offhook import chatkitty

    async with player.step("create a client"):
        kitty = chatkitty.ChatKitty(place.api_key or "", host=place.host, is_secure=place.secure, transport=transport)

    async with kitty:
        kitty.on_current_user_changed(lambda event: _changed(player, event.user))

        await _guest(player, kitty, person)

        async with player.step("start a session with a wrong password"):
            result = await kitty.start_session(person.name, auth_params={"password": f"not {person.password}"})
            if result.succeeded:
                raise Wrong("A wrong password was taken")
            _told_error(player, result.error)
            expect("the error", "AccessDeniedError", result.error.error)
            expect("the current user", None, kitty.current_user)

        async with player.step(f"start an authenticated session as {person.name}"):
            result = await kitty.start_session(person.name, auth_params={"password": person.password})
            _told_session(player, result.unwrap().session, person.name)

        async with player.step("end the session"):
            await kitty.end_session()
            expect("the current user", None, kitty.current_user)


async def _guest(player: Player, kitty: ChatKitty, person: Person) -> None:
    from offhook import chatkitty

    guest = f"quickstart-{secrets.token_hex(6)}"
    try:
        async with player.step(f"start a guest session as {guest}"):
            result = await kitty.start_session(guest)
            if result.succeeded:
                _told_session(player, result.session, guest)
            elif result.error.error == "AccessDeniedError":
                # An application may have guests switched off; the quickstart's other half is for it.
                _told_error(player, result.error)
            else:
                raise result.error
        if result.failed:
            player.skip("only one session at a time", "the application takes no guests")
            player.skip("delete the guest", "the application takes no guests")
            return
        async with player.step("only one session at a time"):
            try:
                await kitty.start_session(person.name, auth_params={"password": person.password})
            except chatkitty.SessionActiveError as error:
                _told_error(player, error)
            else:
                raise Wrong("A second session was started")
            expect("the current user", guest, None if kitty.current_user is None else kitty.current_user.name)
    finally:
        # Whatever came before, no guest is to stay behind.
        if (user := kitty.current_user) is not None and user.name == guest:
            async with player.step("delete the guest"):
                (await kitty.delete_user(user)).unwrap()
                await kitty.end_session()


def _told_session(player: Player, session: Session, name: str) -> None:
    user = session.user
    kind = "guest" if user.is_guest else "user"
    text = f"session of {user.display_name} ({user.name}, {kind})"
    player.value("session", text, {"user": {"id": user.id, "name": user.name, "displayName": user.display_name}})
    expect("the session's user", name, user.name)


def _told_error(player: Player, error: ChatKittyError) -> None:
    player.value("error", f"{error.error}: {error.message}", {"error": error.error, "message": error.message})


def _changed(player: Player, user: CurrentUser | None) -> None:
    name = None if user is None else user.name
    player.event("current user changed", "nobody" if name is None else name, {"user": name})
