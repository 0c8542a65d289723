"""A user of Kandy.js: signs in the way the build wants it, watches, speaks, listens."""

from __future__ import annotations

from typing import Literal

import msgspec
from tests.e2e.kandy import SdkEvent, SdkPage
from tests.e2e.sdk import PATIENCE
from tests.e2e.tab import Tab
from tests.kandy.products import DEFAULT_SERVICES, Product


class Said(msgspec.Struct, frozen=True, rename="camel"):
    """A message as the SDK keeps it; one that is under way has neither sender nor id."""

    parts: list[dict[str, object]]
    sender: str = ""
    message_id: str | int | None = None

    @property
    def text(self) -> str:
        return "".join(str(part["text"]) for part in self.parts if part["type"] == "text")


class Watched(msgspec.Struct, frozen=True, rename="camel"):
    """The presence of another user as the SDK keeps it."""

    status: str | None = None
    activity: str | None = None
    note: str | None = None


class KandyPage(SdkPage):
    """One build in a page of its own.

    Args:
        tab: the page.
        product: the build on it.
        configuration: what it is created with.
    """

    def __init__(self, tab: Tab, product: Product, configuration: dict[str, object]) -> None:
        super().__init__(tab)
        self.product = product
        self.configuration = configuration

    def __repr__(self) -> str:
        return f"<{self.product} {self.tab!r}>"

    async def start(self) -> None:
        """Creates the SDK."""
        await self.create(self.configuration)

    async def reload(self) -> None:
        """F5: the SDK is gone without a word, and a new one there that knows nothing."""
        await self.tab.reload()
        await self.start()

    # --- signing in and out -----------------------------------------------------------------------------

    @property
    def failures(self) -> str:
        """The name of the event that tells why signing in failed."""
        return "subscription:error" if self.product.plugin else "auth:error"

    @property
    def changes(self) -> str:
        """The name of the event that tells that something about being signed in changed."""
        return "subscription:change" if self.product.plugin else "auth:change"

    @property
    def renewals(self) -> str:
        """The name of the event that tells the outcome of a renewal."""
        return "subscription:resub" if self.product.plugin else "auth:resub"

    def signed_in(self, event: SdkEvent) -> bool:
        """Whether the SDK called itself signed in when it told this."""
        return bool(event.subscribed) if self.product.plugin else event.connected

    async def begin(
        self, credentials: dict[str, object], *, services: tuple[str, ...] = DEFAULT_SERVICES, **options: object
    ) -> None:
        """Signs in and does not wait for the outcome. What ``connect`` asks for is in the configuration."""
        if self.product.plugin:
            await self.call("setCredentials", credentials)
            await self.call("services.subscribe", list(services), options)
        else:
            await self.call("connect", credentials, options)

    async def sign_in(
        self, user: str, password: str, *, services: tuple[str, ...] = DEFAULT_SERVICES, **options: object
    ) -> SdkEvent:
        """Signs in, which must succeed."""
        return await self.sign_in_with({"username": user, "password": password}, services=services, **options)

    async def sign_in_with(
        self, credentials: dict[str, object], *, services: tuple[str, ...] = DEFAULT_SERVICES, **options: object
    ) -> SdkEvent:
        """Signs in with these credentials, which must succeed."""
        since = self.tab.mark
        await self.begin(credentials, services=services, **options)
        return await self.in_at_last(since)

    async def in_at_last(self, since: int = 0, timeout: float = PATIENCE) -> SdkEvent:
        """Waits until the SDK is signed in, or says why not."""
        outcome = await self.wait(
            (self.changes, self.failures),
            lambda event: event.name == self.failures or self.signed_in(event),
            since=since,
            timeout=timeout,
        )
        assert outcome.name == self.changes, f"{self}: {outcome.payload}\n{self.tab.story(since)}"
        return outcome

    async def refused(self, credentials: dict[str, object]) -> tuple[object, str]:
        """Tries to sign in, which must fail; code and message of the error."""
        since = self.tab.mark
        await self.begin(credentials)
        outcome = await self.wait(
            (self.changes, "subscription:error", "auth:error"),
            lambda event: event.name.endswith(":error") or self.signed_in(event),
            since=since,
        )
        assert outcome.name.endswith(":error"), f"{self} is signed in:\n{self.tab.story(since)}"
        return outcome.error

    async def sign_out(self) -> None:
        """Signs out and waits until the SDK is done with it."""
        since = self.tab.mark
        state = await self.state()
        if self.product.plugin:
            await self.call("services.unsubscribe", state.subscribed)
            await self.wait(
                self.changes,
                lambda event: not event.subscribed and (event.services or {}).get("isPending") is False,
                since=since,
            )
        else:
            await self.call("disconnect")
            await self.wait(
                self.changes,
                lambda event: not event.connected and (event.connection or {}).get("isPending") is False,
                since=since,
            )

    @property
    def evicted(self) -> str:
        """The reason it gives when the server has sent it away."""
        return "GONE" if self.product.hears_gone else "LOST_CONNECTION"

    async def ended(self, since: int = 0, timeout: float = PATIENCE) -> str:
        """Waits until the SDK tells that its stay was ended, and returns the reason it gives."""
        event = await self.wait(self.changes, lambda event: "reason" in event.fields, since=since, timeout=timeout)
        return str(event.fields["reason"])

    def reasons(self, since: int = 0) -> list[str]:
        """The reasons of all ends so far."""
        return [str(e.fields["reason"]) for e in self.events(self.changes, since=since) if "reason" in e.fields]

    # --- presence ---------------------------------------------------------------------------------------

    async def watch(self, *names: str) -> None:
        """``presence.subscribe``."""
        await self.call("presence.subscribe", list(names))

    async def sees(self, name: str, status: str, activity: str, note: str | None = None) -> None:
        """Waits until the SDK has this presence of another user."""
        wanted = Watched(status, activity, note)

        async def probe() -> Watched:
            found = msgspec.convert(await self.call("presence.get", name), list[Watched])
            return found[0] if found else Watched()

        await self.tab.eventually(probe, lambda seen: seen == wanted, f"{wanted} of {name}")

    def told(self, name: str, since: int = 0) -> list[tuple[str, str]]:
        """Status and activity of each presence notification about a user, in order, whatever the SDK made of it."""
        told = []
        for message in self.notifications("presenceWatcher", since):
            about = msgspec.convert(message["presenceWatcherNotificationParams"], dict[str, object])
            if about["name"] == name:
                told.append((str(about["status"]), str(about["activity"])))
        return told

    # --- messages ---------------------------------------------------------------------------------------

    async def say(self, recipient: str, text: str) -> None:
        """Sends a text message and does not wait for the outcome."""
        await self.tab.evaluate("(to, text) => window.offhook.say(to, text)", recipient, text)

    async def messages(self, peer: str) -> list[Said]:
        """The messages of the conversation with another user, in the SDK's order."""
        found = await self.tab.evaluate("(peer) => window.offhook.messages(peer)", peer)
        return msgspec.convert(found, list[Said])

    async def hears(self, peer: str, *texts: str, timeout: float = PATIENCE) -> None:
        """Waits until the texts that came from another user are just these, in this order."""

        async def probe() -> list[str]:
            return [said.text for said in await self.messages(peer) if said.sender == peer]

        await self.tab.eventually(
            probe, lambda heard: heard == list(texts) or len(heard) > len(texts), f"{texts} from {peer}", timeout
        )
        assert await probe() == list(texts), f"{self}\n{self.tab.story()}"

    async def spoke(self, peer: str, *texts: str) -> None:
        """Waits until the server has taken these messages to another user."""

        async def probe() -> list[str]:
            mine = [said for said in await self.messages(peer) if said.sender != peer]
            return [said.text for said in mine if said.message_id is not None]

        await self.tab.eventually(probe, lambda heard: heard == list(texts), f"the delivery of {texts} to {peer}")

    def notifications(self, kind: str, since: int = 0) -> list[dict[str, object]]:
        """What came over the notification socket with this ``eventType``, or UC's ``event``, in order."""
        found = []
        for text in self.tab.frames("received", since):
            message = msgspec.json.decode(text or "{}", type=dict[str, dict[str, object]])["notificationMessage"]
            if kind in (message.get("eventType"), message.get("event")):
                found.append(message)
        return found

    def complaints(self) -> list[str]:
        """What went wrong in the page's scripts, but for words about a socket that an SDK found closed at its ping."""
        return [text for text in self.tab.complaints() if "websocket was not in readyState" not in text]

    # --- the network ------------------------------------------------------------------------------------

    def posted(self, since: int = 0) -> list[Literal["POST", "PUT", "DELETE"]]:
        """The methods of all requests about the subscription, in order."""
        methods = [exchange.request.method for exchange in self.tab.exchanges("/subscription", since)]
        return msgspec.convert(methods, list[Literal["POST", "PUT", "DELETE"]])
