"""A web application with accounts of its own, whose users are Offhook's users: it signs a token for whoever signs in.

Offhook's application must accept the tokens: ``offhook app update default --token-algorithm HS256
--token-secret-file FILE``, where the file has what this program reads from OFFHOOK_TOKEN_SECRET.
"""

from __future__ import annotations

import html
import os
import secrets
import time
from typing import Annotated
from urllib.parse import urlsplit

import jwt
from fastapi import Cookie, Depends, FastAPI, Form, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse

from offhook.chatkitty import ChatKitty

SERVER = urlsplit(os.environ.get("OFFHOOK_URL", "http://127.0.0.1:8686"))
API_KEY = os.environ.get("OFFHOOK_API_KEY", "")
TOKEN_SECRET = os.environ.get("OFFHOOK_TOKEN_SECRET", "")
TOKEN_SECONDS = 300

# A real application has a database of accounts with hashed passwords, and keeps sign-ins there, too.
ACCOUNTS = {"jane": ("Jane", "jane's password"), "joe": ("Joe", "joe's password")}
signed_in: dict[str, str] = {}

app = FastAPI()

LOGIN = """<form method="post" action="/login">
<input name="account" placeholder="jane"> <input name="password" type="password"> <button>Sign in</button>
</form>"""


def current(account_cookie: Annotated[str | None, Cookie(alias="account")] = None) -> str:
    """The account that is signed in."""
    account = signed_in.get(account_cookie or "")
    if account is None:
        raise HTTPException(401, "Sign in first")
    return account


Current = Annotated[str, Depends(current)]


def username(account: str) -> str:
    """The account's name at Offhook, where users of Kandy's clients are told apart by their domain."""
    return f"{account}@example.com"


def sign(account: str) -> str:
    """A token by which Offhook believes that it is this account. It makes a new user of one that it has not seen."""
    claims = {"sub": username(account), "name": ACCOUNTS[account][0], "exp": int(time.time()) + TOKEN_SECONDS}
    return jwt.encode(claims, TOKEN_SECRET, algorithm="HS256")


@app.post("/login")
def login(account: Annotated[str, Form()], password: Annotated[str, Form()]) -> RedirectResponse:
    """Checks the application's own password."""
    known = ACCOUNTS.get(account)
    if known is None or not secrets.compare_digest(known[1].encode(), password.encode()):
        raise HTTPException(403, "Wrong account or password")
    cookie = secrets.token_urlsafe()
    signed_in[cookie] = account
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie("account", cookie, httponly=True, samesite="lax")
    return answer


@app.get("/token")
def token(account: Current) -> dict[str, object]:
    """What a client in the browser needs to start its session: ``startSession({ username, authParams })``."""
    return {"apiKey": API_KEY, "username": username(account), "authParams": {"token": sign(account)}}


@app.post("/session")
async def session(account: Current) -> dict[str, object]:
    """Starts a session as the account from here, as a job or a bot of the application would, and ends it again."""
    async with ChatKitty(API_KEY, host=SERVER.netloc, is_secure=SERVER.scheme == "https") as kitty:
        result = await kitty.start_session(username(account), auth_params={"token": sign(account)})
        if result.succeeded:
            user = result.session.user
            return {"id": user.id, "name": user.name, "displayName": user.display_name, "guest": user.is_guest}
        raise HTTPException(502, result.error.message)


@app.get("/", response_class=HTMLResponse)
async def page(account_cookie: Annotated[str | None, Cookie(alias="account")] = None) -> str:
    """The form to sign in, or what is known of who has."""
    account = signed_in.get(account_cookie or "")
    if account is None:
        return LOGIN
    user = await session(account)
    return f"<p>Offhook started a session of {html.escape(str(user['displayName']))}, user {user['id']}.</p>"
