"""Where a test's Kandy pages, users and applications come from."""

from __future__ import annotations

import itertools
from typing import Literal

import httpx
import msgspec
from tests.e2e.driver import Driver
from tests.e2e.kandy import scripts
from tests.e2e.stage import Stage
from tests.kandy.page import KandyPage
from tests.kandy.products import DEFAULT_SERVICES, Product
from tests.support import ServerProcess

PASSWORD = "correct horse: bättery"
"""Beyond ASCII and with a colon, on which Basic credentials are cut."""

_numbers = itertools.count(1)


class KandyStage(Stage):
    """Makes what a test of Kandy.js needs, and clears it away.

    Args:
        driver: runs the browser.
        server: what the pages connect to unless told otherwise.
    """

    def __init__(self, driver: Driver, server: ServerProcess) -> None:
        super().__init__(driver, server)
        token = (server.data_dir / "admin.token").read_text().strip()
        self._admin = httpx.AsyncClient(
            base_url=f"{server.url}/admin/v1", trust_env=False, headers={"Authorization": f"Bearer {token}"}, timeout=20
        )

    async def page(
        self,
        product: Product,
        *,
        rest: str | None = None,
        socket: str | None = None,
        expires: int = 3600,
        services: tuple[str, ...] = DEFAULT_SERVICES,
        margin: int = 300,
        **sections: dict[str, object],
    ) -> KandyPage:
        """A new page with the SDK created, signed in to nothing.

        Args:
            product: the build.
            rest: ``host:port`` of the REST server; this server's TLS listener unless given.
            socket: the same of the notification socket.
            expires: seconds that a subscription lives.
            services: what ``connect`` subscribes to.
            margin: seconds before the end of its token that UC gets another one.
            sections: further sections of the configuration.
        """
        configuration = product.configuration(
            rest or self.server.tls_host,
            socket or self.server.tls_host,
            expires=expires,
            services=services,
            margin=margin,
            **sections,
        )
        page = KandyPage(await self.tab("", scripts(product.script)), product, configuration)
        await page.start()
        return page

    async def admin(
        self, method: Literal["GET", "POST", "PATCH", "PUT", "DELETE"], path: str, **body: object
    ) -> object:
        """Asks the admin API, which must agree."""
        answer = await self._admin.request(method, path, json=body if method != "GET" else None)
        assert answer.is_success, answer.text
        return msgspec.json.decode(answer.content) if answer.content else None

    async def user(self, role: str, *, app: str = "default", domain: str = "example.com") -> str:
        """A new user with the password ``PASSWORD``; returns the name, which no other test has."""
        name = f"{role}-{next(_numbers)}@{domain}"
        await self.admin("POST", f"/applications/{app}/users", name=name, password=PASSWORD)
        return name

    async def tenant(self, **fields: object) -> tuple[str, str]:
        """A new application; returns its name and its Kandy domain."""
        name = f"tenant-{next(_numbers)}"
        await self.admin("POST", "/applications", name=name, domain=f"{name}.example", **fields)
        return name, f"{name}.example"

    async def someone(self, product: Product, role: str = "someone") -> tuple[KandyPage, str]:
        """A new page of a new user, signed in; the page and the user's name."""
        page, user = await self.page(product), await self.user(role)
        await page.sign_in(user, PASSWORD)
        return page, user

    async def end_sessions(self, user: str, *, app: str = "default") -> None:
        """Sends all devices of a user away, as ``offhook session end --user`` does."""
        await self.admin("POST", "/sessions/end", application=app, user=user)

    async def clear(self) -> None:
        """Closes all pages and proxies."""
        await super().clear()
        await self._admin.aclose()
