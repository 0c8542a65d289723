"""A chat by ChatKitty's protocol. Without channels there is nothing to write to, but everybody's presence is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offhook.cli.chat.room import CannotWrite, Screen, told

if TYPE_CHECKING:
    from offhook.chatkitty import CurrentUserOffline, Resumed, SessionEnded, User, UserPresenceChanged
    from offhook.cli.quickstart.place import Person, Place
    from offhook.client.transport import Transport


class ChatKittyChatter:
    """A user's ChatKitty client.

    Args:
        place: the server, with its API key.
        person: the user; with an empty password they come without credentials, as guest.
        transport: to the server.
        screen: where everything is shown.
    """

    notice: str | None = (
        "ChatKitty's messages need channels, which Offhook does not serve yet: you see who is here, and are seen."
    )

    def __init__(self, place: Place, person: Person, transport: Transport, screen: Screen) -> None:
        from offhook.chatkitty import ChatKitty

        self._kitty = ChatKitty(place.api_key or "", host=place.host, is_secure=place.secure, transport=transport)
        self._person = person
        self._screen = screen

    async def start(self) -> None:
        """Starts the session. Raises ChatKittyError."""
        kitty, person = self._kitty, self._person
        kitty.on_user_presence_changed(self._presence)
        kitty.on_current_user_offline(self._offline)
        kitty.on_resumed(self._resumed)
        kitty.on_session_ended(self._ended)
        proof = {"password": person.password} if person.password else None
        session = (await kitty.start_session(person.name, auth_params=proof)).unwrap().session
        kind = " (guest)" if session.user.is_guest else ""
        self._screen.news(f"You are here as {session.user.name}{kind}.")
        for line in await self.who():
            self._screen.news(f"{line} is here")

    async def send(self, to: str, text: str) -> None:
        """Raises CannotWrite."""
        raise CannotWrite("Messages need channels, which Offhook does not serve yet")

    async def watch(self, user: str) -> None:
        """Nothing has to be done: everybody is watched."""

    async def who(self) -> list[str]:
        """Those who are here. Raises ChatKittyError."""
        from offhook.chatkitty import UserFilter

        listed = (await self._kitty.list_users(UserFilter(online=True))).unwrap()
        return [_shown(user) async for user in listed.paginator if user.name != self._person.name]

    async def status(self, word: str, note: str) -> None:
        """Chooses the user's own status, which is free text. Raises ChatKittyError."""
        status = f"{word} {note}".strip()
        user = (await self._kitty.update_current_user(lambda user: user.replace(status=status))).unwrap().user
        self._screen.news(f"You are shown as {user.presence.status}.")

    async def close(self) -> None:
        """Ends the session."""
        await self._kitty.close()

    def _presence(self, event: UserPresenceChanged) -> None:
        user = event.user
        self._screen.news(f"{_shown(user)} is here" if user.presence.online else f"{user.name} is not here")

    def _offline(self, event: CurrentUserOffline) -> None:
        if self._kitty.session is not None:
            self._screen.news("The connection is lost; trying again.")

    def _resumed(self, event: Resumed) -> None:
        gap = "" if event.complete else " Something may have been missed meanwhile; see /who."
        self._screen.news(f"The connection is back.{gap}")

    def _ended(self, event: SessionEnded) -> None:
        self._screen.over(f"The session is over: {told(event.error)}")


def _shown(user: User) -> str:
    name = user.name if user.display_name in ("", user.name) else f"{user.display_name} <{user.name}>"
    status = user.presence.status
    return name if status in ("", "AVAILABLE") else f"{name} ({status})"
