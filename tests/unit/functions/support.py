"""What the tests of functions share."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from offhook.domain.accounts import Application, WebhookPolicy
from offhook.functions.registry import Registry
from offhook.functions.runner import FunctionRunner
from offhook.functions.webhook import Webhooks
from offhook.ports import StartAttempt

SECRET = "a secret of the application"


def application(name: str = "shop", webhook: WebhookPolicy | None = None) -> Application:
    """An application, perhaps with a webhook."""
    return Application(1, name, f"{name}.example", "key", "client", "hash", datetime.now(UTC), webhook=webhook)


def attempt(username: str = "jane", app: str = "shop", **auth_params: object) -> StartAttempt:
    """An attempt to start a session."""
    return StartAttempt(app, username, dict(auth_params), "chatkitty", "203.0.113.7")  # type: ignore[arg-type]


async def known_jane(app: Application, name: str) -> bool:
    """Jane is the only user."""
    await asyncio.sleep(0)
    return name == "jane"


def registry(*functions: Callable[..., object], **named: Callable[..., object]) -> Registry:
    """A registry with functions for all applications and for named ones."""
    made = Registry()
    for function in functions:
        made.add(None, function)
    for name, function in named.items():
        made.add(name, function)
    return made


@asynccontextmanager
async def running(
    functions: Registry,
    *,
    timeout: float = 5.0,
    observed: list[tuple[str, float]] | None = None,
    places: int = 64,
    max_waiting: int = 1000,
    stuck_after: float = 0.2,
    max_stuck_loops: int = 8,
) -> AsyncIterator[FunctionRunner]:
    """A runner that is closed at the end."""

    def observe(outcome: str, seconds: float) -> None:
        if observed is not None:
            observed.append((outcome, seconds))

    runner = FunctionRunner(
        functions,
        Webhooks(lambda application: SECRET),
        timeout=timeout,
        user_exists=known_jane,
        observer=observe,
        places=places,
        max_waiting=max_waiting,
        stuck_after=stuck_after,
        max_stuck_loops=max_stuck_loops,
    )
    try:
        yield runner
    finally:
        await runner.close()


def function_threads() -> set[threading.Thread]:
    """The living threads of functions."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("offhook-function")}


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.002)
