"""Answers every message with its own words, also those that came while the bot was away, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from urllib.parse import urlsplit

from offhook import kandy

SERVER = urlsplit(os.environ.get("OFFHOOK_URL", "http://127.0.0.1:8686"))
USER = os.environ.get("OFFHOOK_USER", "alice@example.com")
PASSWORD = os.environ.get("OFFHOOK_PASSWORD", "")


async def main() -> None:
    port = SERVER.port or (443 if SERVER.scheme == "https" else 80)
    config = {
        "authentication": {"server": {"base": SERVER.hostname, "port": port, "protocol": SERVER.scheme}},
        "subscription": {
            "websocket": {"server": SERVER.hostname, "port": port, "protocol": SERVER.scheme.replace("http", "ws")}
        },
    }
    async with (
        kandy.create(config, product="link") as client,
        # Gathered from here on, so that nothing is missed of what comes with the subscription.
        client.events("messages:change", "subscription:change") as events,
    ):
        client.set_credentials(username=USER, password=PASSWORD)
        try:
            await client.services.subscribe(["IM", "Presence"])
        except kandy.KandyError as error:
            sys.exit(str(error))
        print("Listening as", USER, flush=True)
        async for event in events:
            if isinstance(event, kandy.SubscriptionChange) and event.reason is not None:
                sys.exit(f"The server has ended the subscription: {event.reason}")
            if isinstance(event, kandy.MessagesChange) and event.message is not None and event.message.incoming:
                await answer(client, event.message)


async def answer(client: kandy.Client, message: kandy.Message) -> None:
    """Says what was said."""
    print(f"{message.sender}: {message.text}", flush=True)
    try:
        await client.conversation.create(message.sender).send(message.text)
    except kandy.KandyError as error:
        print("No answer was sent:", error, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
