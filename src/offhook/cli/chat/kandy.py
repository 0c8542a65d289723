"""A chat by Kandy's protocol, as Link or UC client: messages both ways, and the presence of those who are watched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from offhook.cli.chat.room import Screen

if TYPE_CHECKING:
    from offhook.cli.quickstart.place import Person, Place
    from offhook.client.transport import Transport
    from offhook.kandy import (
        AuthChange,
        MessagesChange,
        PresenceChange,
        SubscriptionChange,
        WsChange,
    )

SERVICES = ("Presence", "IM")
CLOSED = "closed"


class KandyChatter:
    """A user's Kandy client.

    Args:
        product: which protocol it speaks.
        place: the server.
        person: the user.
        transport: to the server.
        screen: where everything is shown.
    """

    notice: str | None = None

    def __init__(
        self,
        product: Literal["link", "uc"],
        place: Place,
        person: Person,
        transport: Transport,
        screen: Screen,
    ) -> None:
        from offhook import kandy

        self._client = kandy.create(place.kandy(product), product=product, transport=transport)
        self._product = product
        self._person = person
        self._screen = screen
        self._watched: set[str] = set()
        self._started = False

    async def start(self) -> None:
        """Signs in and subscribes. Raises ClientError."""
        client, person = self._client, self._person
        client.on("presence:change", self._presence)
        client.on("messages:change", self._message)
        client.on("ws:change", self._socket)
        client.on("subscription:change", self._subscription)
        client.on("auth:change", self._auth)
        if self._product == "uc":
            await client.connect(username=person.name, password=person.password)
        else:
            client.set_credentials(username=person.name, password=person.password)
            await client.services.subscribe(SERVICES)
        self._started = True
        self._screen.news(f"You are here as {client.get_user_info().username}.")

    async def send(self, to: str, text: str) -> None:
        """Sends a message. Raises KandyError."""
        await self._client.conversation.create(to).send(text)

    async def watch(self, user: str) -> None:
        """Watches a user; nothing happens if that is so already. Raises KandyError."""
        if user not in self._watched and user != self._person.name:
            self._watched.add(user)
            try:
                await self._client.presence.subscribe([user])
            except BaseException:
                self._watched.discard(user)
                raise

    async def who(self) -> list[str]:
        """Those watched who are here. The protocol has no list of everybody."""
        known = [presence for presence in self._client.presence.get_all() if presence.user in self._watched]
        return [f"{it.user}{_how(it.activity, it.note)}" for it in known if it.status != CLOSED]

    async def status(self, word: str, note: str) -> None:
        """Chooses the user's own presence: an activity, or ``closed``. Raises KandyError."""
        closed = word == CLOSED
        await self._client.presence.update(CLOSED if closed else "open", "unknown" if closed else word, note or None)
        self._screen.news(f"You are shown as {word}{f': {note}' if note else ''}.")

    async def close(self) -> None:
        """Ends the subscription."""
        self._started = False
        await self._client.destroy()

    def _presence(self, event: PresenceChange) -> None:
        here = event.status != CLOSED
        self._screen.news(
            f"{event.user} is here{_how(event.activity, event.note)}" if here else f"{event.user} is not here"
        )

    def _message(self, event: MessagesChange) -> None:
        if event.message is not None and event.message.incoming:
            self._screen.message(event.message.sender, event.message.text)

    def _socket(self, event: WsChange) -> None:
        if self._started:
            self._screen.news("The connection is back." if event.connected else "The connection is lost; trying again.")

    def _subscription(self, event: SubscriptionChange) -> None:
        if self._started and event.reason is not None:
            self._screen.over(f"The server has ended this: {event.reason}")

    def _auth(self, event: AuthChange) -> None:
        if self._started and event.forced:
            self._screen.over(f"The server has ended this: {event.reason}")


def _how(activity: str, note: str | None) -> str:
    words = [word for word in (activity, note) if word and word != "active"]
    return f" ({', '.join(words)})" if words else ""
