"""The Kandy.js builds under test, and where their configuration and their sign-in differ (Kandy notes, 1.2 and 12)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SDKS_VARIABLE = "OFFHOOK_KANDY_SDKS"
"""Environment variable with the folder of SDKs: sub-folders like ``link-5.2.0``, each with a ``kandy.js``."""

DEFAULT_SERVICES = ("call", "Presence", "IM")

_FOLDER = re.compile(r"(link|uc)-(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Product:
    """One build.

    Attributes:
        family: Kandy Link or Kandy UC.
        version: major, minor, patch.
        script: its ``kandy.js``.
    """

    family: Literal["link", "uc"]
    version: tuple[int, int, int]
    script: Path

    def __str__(self) -> str:
        return f"{self.family}-{'.'.join(map(str, self.version))}"

    @property
    def link(self) -> bool:
        return self.family == "link"

    @property
    def plugin(self) -> bool:
        """Whether it has ``setCredentials`` and ``services.subscribe``; else it has ``connect`` only."""
        return self.link and self.version >= (4, 16, 0)

    @property
    def watches_close(self) -> bool:
        """Whether it looks at how its socket ends; older ones notice at their next ping that it is gone."""
        return self.since((4, 27, 0), (3, 27, 0))

    @property
    def hears_gone(self) -> bool:
        """Whether it knows the notification that its subscription is gone; else it only finds its channel closed."""
        return self.link or self.since((4, 29, 0), (3, 29, 0))

    @property
    def passes_options(self) -> bool:
        """Whether what ``connect`` is told beyond credentials gets to the server."""
        return self.link or self.since((4, 18, 0), (3, 18, 0))

    @property
    def revokes(self) -> bool:
        """Whether it revokes its token after it has signed out."""
        return not self.link and not self.since((4, 15, 0), (3, 15, 0))

    @property
    def exchanges_hmac(self) -> bool:
        """Whether it shows its session instead of its HMAC token after the first request, as it should."""
        return self.link and not (4, 16, 0) <= self.version < (4, 28, 0)

    @property
    def updates_tokens(self) -> bool:
        """Whether ``updateToken`` does anything."""
        return not self.link or self.since((4, 38, 0), (3, 38, 0))

    @property
    def tells_unsent(self) -> bool:
        """Whether it tells that a message was not sent; else it takes it for sent, without an id."""
        return self.since((4, 13, 0), (3, 13, 0))

    @property
    def destroys(self) -> bool:
        """Whether ``destroy`` is there."""
        return self.since((4, 20, 0), (3, 20, 0))

    def since(self, four: tuple[int, int, int], three: tuple[int, int, int] = (99, 0, 0)) -> bool:
        """Whether it is this version or a later one: the lines 3.x and 4.x were released side by side."""
        return self.version >= (three if self.version[0] == 3 else four)

    def configuration(
        self,
        rest: str,
        socket: str,
        *,
        expires: int = 3600,
        services: tuple[str, ...] = DEFAULT_SERVICES,
        margin: int = 300,
        **sections: dict[str, object],
    ) -> dict[str, object]:
        """What ``create`` takes.

        Args:
            rest: ``host:port`` of the REST server.
            socket: ``host:port`` of the notification socket.
            expires: seconds that a subscription lives.
            services: what ``connect`` subscribes to; ``services.subscribe`` is told each time.
            margin: seconds before the end of its token that UC gets another one.
            sections: further sections of the configuration, e.g. ``connectivity``.
        """
        (rest_host, rest_port), (socket_host, socket_port) = _split(rest), _split(socket)
        more: dict[str, object] = {"logs": {"logLevel": "warn"}, **sections}
        if self.plugin:
            return {
                "authentication": {
                    "server": {"base": rest_host, "port": rest_port},
                    "subscription": {"service": list(services)},
                },
                "subscription": {"expires": expires, "websocket": {"server": socket_host, "port": socket_port}},
                **more,
            }
        subscription = {"server": rest_host, "port": rest_port, "expires": expires, "service": list(services)}
        return {
            "authentication": {
                "subscription": subscription,
                "websocket": {"protocol": "wss", "server": socket_host, "port": socket_port},
                "earlyRefreshMargin": margin,
            },
            **more,
        }


def _split(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host, port


def products() -> list[Product]:
    """The builds in the folder, newest first; none if there is no folder.

    Raises:
        LookupError: the folder has no build in it.
    """
    folder = os.environ.get(SDKS_VARIABLE)
    if not folder:
        return []
    found = []
    for script in Path(folder).glob("*/kandy.js"):
        if match := _FOLDER.fullmatch(script.parent.name):
            major, minor, patch = (int(number) for number in match.groups()[1:])
            found.append(Product("link" if match[1] == "link" else "uc", (major, minor, patch), script.absolute()))
    if not found:
        raise LookupError(f"{SDKS_VARIABLE}={folder} has no sub-folder like link-5.2.0 with a kandy.js")
    return sorted(found, key=lambda product: (product.link, product.version), reverse=True)
