"""ChatKitty's quickstart: starts a user session, as guest or with a password, and ends it."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

from offhook.chatkitty import ChatKitty

SERVER = urlsplit(os.environ.get("OFFHOOK_URL", "http://127.0.0.1:8686"))
API_KEY = os.environ.get("OFFHOOK_API_KEY", "")
PASSWORD = os.environ.get("OFFHOOK_PASSWORD")
USER = os.environ.get("OFFHOOK_USER", "alice@example.com" if PASSWORD else "jane@chatkitty.com")


async def main() -> None:
    async with ChatKitty(API_KEY, host=SERVER.netloc, is_secure=SERVER.scheme == "https") as kitty:
        # Without a password whoever is not known yet becomes a guest.
        result = await kitty.start_session(USER, auth_params={"password": PASSWORD} if PASSWORD else None)
        if result.succeeded:
            user = result.session.user
            print(f"Session of {user.display_name} (guest: {user.is_guest})")
        else:
            print(f"No session: {result.error.message} ({result.error.error})")
            return
        await kitty.end_session()
        print("Session ended, current user:", kitty.current_user)


if __name__ == "__main__":
    asyncio.run(main())
