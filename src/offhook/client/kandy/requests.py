"""The requests of a subscription's life, and what their answers mean (Kandy protocol notes, 3.1, 3.3, 3.5 and 3.6)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

from offhook.client.errors import ConnectionFailed, TimedOut
from offhook.client.kandy.core import GRACE, LONGEST_WAIT, Core, settle
from offhook.client.kandy.errors import SUBSCRIBE_FAILED, UNAVAILABLE, UPDATE_FAILED, KandyError
from offhook.client.kandy.rest import Reply, words
from offhook.protocols.kandy import bodies, replies
from offhook.protocols.kandy.paths import Resource, user_path
from offhook.protocols.kandy.status import SUBSCRIPTION_GONE, StatusCode

WRAPPER = "subscribeResponse"

_log = logging.getLogger("offhook.kandy")


@dataclass(frozen=True, slots=True)
class Options:
    """What may be asked for with a new subscription.

    Attributes:
        force_log_out: whether the user's oldest subscription may be ended for it.
        client_correlator: the app's own name for it.
    """

    force_log_out: bool = False
    client_correlator: str | None = None


class Gone(KandyError):
    """The server does not know the subscription any more."""


async def post(core: Core, services: Sequence[str], options: Options) -> replies.Subscription:
    """Makes a subscription; tries again if the server asks to be left alone for a while (3.3).

    One that is cancelled ends what the server has made meanwhile.

    Args:
        core: of the client.
        services: all that are wanted.
        options: further wishes.

    Raises:
        KandyError: ``authentication:4``, ``authentication:13``.
    """
    path = user_path(core.rest.username, Resource.SUBSCRIPTION, version=core.config.version)
    body = _body(core, services, options)
    for attempt in range(core.config.unavailable_retries + 1):
        # An answer that is on its way is waited for, for it says what there is to end.
        task, cancelled = await settle(core.rest.ask("POST", path, content=body))
        if task.cancelled():
            raise asyncio.CancelledError
        try:
            reply = task.result()
        except (ConnectionFailed, TimedOut) as error:
            raise KandyError(SUBSCRIBE_FAILED, f"Subscribe request failed: {words(error)}") from error
        if cancelled:
            if reply.ok:
                await settle(delete(core, _made(core, reply).path))
            raise asyncio.CancelledError
        wait = _wait(reply)
        if wait is None:
            break
        if attempt >= core.config.unavailable_retries or wait > LONGEST_WAIT:
            code = SUBSCRIBE_FAILED if core.uc else UNAVAILABLE
            raise KandyError(code, f"The server is not available. {reply.reason(WRAPPER)}", reply.status, wait)
        await asyncio.sleep(wait * random.uniform(1.0, 1.25))  # noqa: S311 - not a secret
    if not reply.ok:
        raise _refused(core, reply)
    return _made(core, reply)


async def put(
    core: Core, username: str, present: replies.Subscription, services: Sequence[str]
) -> replies.Subscription:
    """Renews a subscription, with this list of services from now on (3.5).

    Args:
        core: of the client.
        username: whose it is.
        present: what the server last said of it.
        services: all that are wanted.

    Raises:
        Gone: it is no longer there.
        KandyError: ``authentication:6``.
    """
    path = present.path
    if present.client_correlator is not None:
        names = ("clientCorrelator", present.client_correlator)
        path = user_path(username, Resource.SUBSCRIPTION, *names, version=core.config.version)
    try:
        reply = await core.rest.ask("PUT", path, content=_body(core, services))
    except (ConnectionFailed, TimedOut) as error:
        raise KandyError(UPDATE_FAILED, f"Failed to update user subscription. {words(error)}") from error
    number = reply.code(WRAPPER)
    if reply.status == 404 and number in SUBSCRIPTION_GONE:
        raise Gone(str(number), f"Subscription no longer exists. Code {number}.", reply.status)
    if not reply.ok:
        said = f"Failed to update user subscription. Code: {number}. {reply.reason(WRAPPER)}"
        raise KandyError(UPDATE_FAILED, said, reply.status, _asked(reply))
    if number not in (StatusCode.OK, StatusCode.PARTIAL):
        raise KandyError(UPDATE_FAILED, f"Unknown error; statusCode: {number}.", reply.status)
    try:
        return replies.subscription(reply.value)
    except replies.ReplyError as error:
        raise KandyError(UPDATE_FAILED, f"Failed to update user subscription. {error}", reply.status) from None


async def delete(core: Core, path: str, patience: float = GRACE) -> None:
    """Ends a subscription. What the server says to that is logged: it is over in any case (3.6).

    Args:
        core: of the client.
        path: of the subscription.
        patience: seconds to wait for an answer.
    """
    try:
        async with asyncio.timeout(patience):
            reply = await core.rest.ask("DELETE", path)
        if not reply.ok:
            _log.info("The end of a subscription was refused: %s", reply.reason(WRAPPER))
    except (KandyError, ConnectionFailed, TimedOut, TimeoutError) as error:
        _log.info("A subscription was ended, but the server could not be told: %s", error)


def _made(core: Core, reply: Reply) -> replies.Subscription:
    try:
        answer = replies.subscription(reply.value)
    except replies.ReplyError as error:
        raise KandyError(SUBSCRIBE_FAILED, f"Subscribe request failed: {error}", reply.status) from None
    core.rest.credentials = core.rest.shown.with_session(answer.session_id)
    return answer


def _refused(core: Core, reply: Reply) -> KandyError:
    number = reply.code(WRAPPER)
    if number is None:
        said = f"Subscribe request failed: {reply.reason(WRAPPER)}"
    else:
        said = f"Failed to subscribe user. {'' if core.uc else 'Status '}Code: {number}. {reply.reason(WRAPPER)}"
    return KandyError(SUBSCRIBE_FAILED, said, reply.status, _asked(reply))


def _body(core: Core, services: Sequence[str], options: Options | None = None) -> bytes:
    config = core.config
    return bodies.subscribe(
        services,
        config.expires,
        localization=config.localization,
        use_turn=config.use_turn,
        notification_type=config.notification_type,
        force_logout=None if options is None or core.uc else options.force_log_out,
        client_correlator=None if options is None else options.client_correlator,
    )


def _wait(reply: Reply) -> float | None:
    """Seconds for which the server, not available now, asked to be left alone (3.3); None if it did not."""
    return _asked(reply) if reply.status == 503 else None


def _asked(reply: Reply) -> float | None:
    """Seconds for which the server asked to be left alone, by a header or in the body; None if it did not."""
    if reply.retry_after is not None:
        return reply.retry_after
    milliseconds = replies.retry_after_ms(reply.value, WRAPPER)
    return None if milliseconds is None else max(milliseconds / 1000, 0.0)
