"""Kandy UC's quickstart: connects, tells what its events tell, and disconnects."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

from offhook import kandy

SERVER = urlsplit(os.environ.get("OFFHOOK_URL", "http://127.0.0.1:8686"))
USER = os.environ.get("OFFHOOK_USER", "alice@example.com")
PASSWORD = os.environ.get("OFFHOOK_PASSWORD", "")


async def main() -> None:
    where = {"server": SERVER.hostname, "port": SERVER.port or (443 if SERVER.scheme == "https" else 80)}
    config = {
        "authentication": {
            "subscription": {**where, "protocol": SERVER.scheme},
            "websocket": {**where, "protocol": SERVER.scheme.replace("http", "ws")},
        }
    }
    async with kandy.create(config, product="uc") as client:

        def changed(event: kandy.AuthChange) -> None:
            print("Connection state changed. Connected:", client.get_connection().is_connected)

        def failed(event: kandy.AuthError) -> None:
            print(f"Connect error: {event.error.message} ({event.error.code})")

        client.on("auth:change", changed)
        client.on("auth:error", failed)
        try:
            await client.connect(username=USER, password=PASSWORD)
        except kandy.KandyError:
            return  # the event has told why
        services = ",".join(client.get_connection().subscription.received)
        print(f"{client.get_user_info().username} is connected, with the services {services}")
        await client.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
