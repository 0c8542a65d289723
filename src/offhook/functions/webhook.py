"""Asking an application's webhook whether a user may start a session.

The request is a POST of the event as JSON::

    {"type": "user.attempted.start_session", "username": "jane", "authParams": {"password": "…"},
     "protocol": "chatkitty", "address": "203.0.113.7", "application": "shop"}

signed as `offhook.functions.signature` says. Any 2xx status lets the user in; a JSON body may hold
``displayName`` and ``properties``. Everything else refuses; the client reads the ``message`` of a 403's JSON
body, and of any other failure only that the function failed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator

import httpx
import structlog

from offhook.domain.accounts import Application, WebhookPolicy
from offhook.errors import InvalidInput
from offhook.functions.answers import DENIED, FAILED, TOO_LONG, Denial, Outcome, profile_from, public_message
from offhook.functions.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from offhook.ports import Profile, StartAttempt

log = structlog.get_logger(__name__)

MAX_RESPONSE = 64 * 1024
"""Bytes of a response's body."""
EVENT_TYPE = "user.attempted.start_session"


class _ResponseTooLarge(Exception):
    pass


class Webhooks:
    """The HTTP client of all webhooks.

    Args:
        secret_for: gives an application's webhook secret.
        connections: connections at once.
    """

    def __init__(self, secret_for: Callable[[Application], str], *, connections: int = 100) -> None:
        self._secret_for = secret_for
        self._connections = connections
        self._http: httpx.AsyncClient | None = None
        self._closed = False

    async def authenticate(self, application: Application, policy: WebhookPolicy, attempt: StartAttempt) -> Profile:
        """Asks the application's webhook.

        Raises:
            Denial: it refused, took longer than the policy allows, could not be reached or answered nonsense.
        """
        secret = self._secret_for(application)
        where = log.bind(application=attempt.application, username=attempt.username, webhook=_bare(policy.url))
        try:
            async with asyncio.timeout(policy.timeout):
                status, is_json, body = await self._post_patiently(policy.url, attempt, secret)
        except TimeoutError:
            where.warning("webhook_too_slow", seconds=policy.timeout)
            raise Denial(TOO_LONG, Outcome.TIMEOUT) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            where.warning("webhook_unreachable", error=f"{type(error).__name__}: {error}")
            raise Denial(FAILED, Outcome.FAILED) from None
        except _ResponseTooLarge:
            where.warning("webhook_answer_too_large", limit=MAX_RESPONSE)
            raise Denial(FAILED, Outcome.FAILED) from None
        if status == httpx.codes.FORBIDDEN:
            raise Denial(_refusal(body), Outcome.DENIED)
        if not httpx.codes.is_success(status):
            where.warning("webhook_failed", status=status)
            raise Denial(FAILED, Outcome.FAILED)
        try:
            # Frameworks put "OK" into the body of an empty 200: only what calls itself JSON is an answer.
            return profile_from(json.loads(body)) if is_json and body else Profile()
        except (ValueError, RecursionError, InvalidInput) as error:
            where.warning("webhook_answered_nonsense", error=str(error))
            raise Denial(FAILED, Outcome.FAILED) from None

    async def _post_patiently(self, url: str, attempt: StartAttempt, secret: str) -> tuple[int, bool, bytes]:
        try:
            return await self._post(url, attempt, secret)
        except httpx.TransportError as error:
            if not _may_retry(error):
                raise
            return await self._post(url, attempt, secret)

    async def _post(self, url: str, attempt: StartAttempt, secret: str) -> tuple[int, bool, bytes]:
        """Sends the signed request. Returns the status, whether the body calls itself JSON, and the body."""
        body = json.dumps(
            {
                "type": EVENT_TYPE,
                "username": attempt.username,
                "authParams": attempt.auth_params,
                "protocol": attempt.protocol,
                "address": attempt.address,
                "application": attempt.application,
            },
            separators=(",", ":"),
        ).encode()
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP_HEADER: str(now),
            SIGNATURE_HEADER: sign(secret, now, body),
        }
        async with self._client().stream("POST", url, content=body, headers=headers) as response:
            received = bytearray()
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > MAX_RESPONSE:
                    raise _ResponseTooLarge
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            is_json = media_type == "application/json" or media_type.endswith("+json")
            return response.status_code, is_json, bytes(received)

    def _client(self) -> httpx.AsyncClient:
        if self._closed:
            raise httpx.TransportError("the server is shutting down")
        if self._http is None:
            self._http = httpx.AsyncClient(
                # Compressed answers are not asked for: a small one could unpack to gigabytes.
                headers={
                    "User-Agent": "Offhook",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
                limits=httpx.Limits(max_connections=self._connections, max_keepalive_connections=self._connections),
                timeout=None,  # noqa: S113 - the policy's timeout is over all of it
                follow_redirects=False,
                trust_env=False,
            )
        return self._http

    async def close(self) -> None:
        """Closes the connections. Idempotent."""
        self._closed = True
        if self._http is not None:
            await self._http.aclose()


def _refusal(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return DENIED
    message = answer.get("message") if isinstance(answer, dict) else None
    return public_message(message) if isinstance(message, str) else DENIED


def _may_retry(error: BaseException) -> bool:
    """Whether the connection was refused or reset, or a kept one had been closed by the other side."""
    if isinstance(error, httpx.RemoteProtocolError):
        return "disconnected without sending a response" in str(error)
    return any(isinstance(cause, ConnectionRefusedError | ConnectionResetError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    pending, seen = [error], set[int]()
    while pending:
        link = pending.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        if isinstance(link, BaseExceptionGroup):
            pending.extend(link.exceptions)
        pending.extend(cause for cause in (link.__cause__, link.__context__) if cause is not None)


def _bare(url: str) -> str:
    """A URL without what may be secret in it: credentials and query."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return "(not a URL)"
    return str(parsed.copy_with(username=None, password=None, query=None, fragment=None))
