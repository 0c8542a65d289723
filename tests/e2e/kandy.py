"""A page with a Kandy.js on it: every event the SDK tells, with what its getters said at that moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from tests.e2e.driver import JS
from tests.e2e.sdk import PATIENCE
from tests.e2e.tab import Tab

PAGE_SCRIPT = JS / "kandy.js"


class SdkState(msgspec.Struct, frozen=True):
    """What ``getConnection``, ``getUserInfo`` and ``services.getSubscriptions`` say; None where an SDK has none."""

    connection: dict[str, object] | None
    user: dict[str, object] | None
    services: dict[str, object] | None

    @property
    def connected(self) -> bool:
        """Whether the SDK's older interface calls itself connected."""
        return self.connection is not None and self.connection.get("isConnected") is True

    @property
    def subscribed(self) -> list[str]:
        """The services that the SDK's newer interface is subscribed to, in the SDK's order."""
        return [] if self.services is None else msgspec.convert(self.services["subscribed"], list[str])


class SdkEvent(SdkState, frozen=True):
    """One event of the SDK. The state is the one its listeners found."""

    name: str
    payload: object = None

    @property
    def fields(self) -> dict[str, object]:
        """The payload, if it is an object; else nothing."""
        return self.payload if isinstance(self.payload, dict) else {}

    @property
    def error(self) -> tuple[object, str]:
        """Code and message of the error it tells."""
        error = msgspec.convert(self.fields["error"], dict[str, object])
        return error.get("code"), str(error.get("message"))


class SdkPage:
    """An SDK in a page.

    Args:
        tab: the page, with the SDK and ``js/kandy.js`` as its scripts.
    """

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    def __repr__(self) -> str:
        return f"{self.tab!r}"

    async def create(self, configuration: dict[str, object]) -> None:
        """``create``, and listeners for every event."""
        await self.tab.evaluate("(configuration) => window.offhook.create(configuration)", configuration)

    async def call(self, path: str, *args: object) -> object:
        """Calls a method by its path below the SDK object, e.g. ``services.subscribe``.

        Raises:
            Thrown: it threw.
        """
        return await self.tab.evaluate("(path, args) => window.offhook.call(path, args)", path, args)

    async def state(self) -> SdkState:
        """What the SDK's getters say now."""
        return msgspec.convert(await self.tab.evaluate("() => window.offhook.state()"), SdkState)

    def events(self, *prefixes: str, since: int = 0) -> list[SdkEvent]:
        """The SDK's events whose names begin like this, all of them if nothing is given, in order."""
        told = self.tab.values("event", SdkEvent, since)
        return [event for event in told if not prefixes or event.name.startswith(prefixes)]

    def names(self, *prefixes: str, since: int = 0) -> list[str]:
        """The names of these events."""
        return [event.name for event in self.events(*prefixes, since=since)]

    async def wait(
        self,
        name: str | Sequence[str],
        predicate: Callable[[SdkEvent], bool] = lambda event: True,
        *,
        since: int = 0,
        timeout: float = PATIENCE,
    ) -> SdkEvent:
        """Waits for the first event of this name (or one of these) from the mark on for which the predicate holds."""
        wanted = (name,) if isinstance(name, str) else tuple(name)

        def found() -> list[SdkEvent]:
            events = self.tab.values("event", SdkEvent, since)
            return [event for event in events if event.name in wanted and predicate(event)]

        await self.tab.until(lambda: bool(found()), f"{' or '.join(wanted)}", timeout)
        return found()[0]


def scripts(sdk: Path) -> list[Path]:
    """The scripts of a page that carries this SDK."""
    return [sdk, PAGE_SCRIPT]
