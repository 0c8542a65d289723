"""Kandy Link's quickstart: sets credentials, subscribes to services, and unsubscribes."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

from offhook import kandy

SERVER = urlsplit(os.environ.get("OFFHOOK_URL", "http://127.0.0.1:8686"))
USER = os.environ.get("OFFHOOK_USER", "alice@example.com")
PASSWORD = os.environ.get("OFFHOOK_PASSWORD", "")
SERVICES = ["call", "Presence", "IM"]


async def main() -> None:
    port = SERVER.port or (443 if SERVER.scheme == "https" else 80)
    config = {
        "authentication": {"server": {"base": SERVER.hostname, "port": port, "protocol": SERVER.scheme}},
        "subscription": {
            "websocket": {"server": SERVER.hostname, "port": port, "protocol": SERVER.scheme.replace("http", "ws")}
        },
    }
    async with kandy.create(config, product="link") as client:

        def credentials(event: kandy.AuthChange) -> None:
            print("Credentials", "set" if client.get_user_info().username else "unset")

        def changed(event: kandy.SubscriptionChange) -> None:
            print("Subscribed services:", ",".join(client.services.get_subscriptions().subscribed))

        def failed(event: kandy.SubscriptionError) -> None:
            print(f"Subscription error: {event.error.message} ({event.error.code})")

        client.on("auth:change", credentials)
        client.on("subscription:change", changed)
        client.on("subscription:error", failed)
        client.set_credentials(username=USER, password=PASSWORD)
        try:
            await client.services.subscribe(SERVICES, force_log_out=True)
        except kandy.KandyError:
            return  # the event has told why
        await client.services.unsubscribe(SERVICES)


if __name__ == "__main__":
    asyncio.run(main())
