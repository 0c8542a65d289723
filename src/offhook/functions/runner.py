"""Asks an application's authentication function or webhook, and lets none of them harm anybody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import MappingProxyType

import structlog

from offhook.domain.accounts import Application
from offhook.errors import AccessDenied, Unavailable
from offhook.functions.answers import FAILED, TOO_LONG, Denial, Outcome, profile_from, public_message
from offhook.functions.calls import Call, CannotRun
from offhook.functions.events import BlockingContext, Context, StartSessionAttempted
from offhook.functions.fair_queue import FairQueue, Place, QueueFull, QueueStuck
from offhook.functions.loops import Loops
from offhook.functions.registry import BoundFunction, Registry
from offhook.functions.threads import ThreadPool
from offhook.functions.tracebacks import describe
from offhook.functions.webhook import Webhooks
from offhook.ports import Profile, StartAttempt

log = structlog.get_logger(__name__)

OVERRUN_GRACE = 0.25
"""Seconds in which a cancelled function may end before it counts as one that hangs."""
CLOSE_GRACE = 2.0
"""Seconds in which functions may end when the server does."""

UserExists = Callable[[Application, str], Awaitable[bool]]
Observer = Callable[[str, float], None]


class FunctionRunner:
    """Implements `offhook.ports.Functions`. To be used from one event loop, the server's.

    A function bound to the application by name wins over the application's webhook, which wins over a
    function bound to all applications.

    Args:
        registry: the Python functions.
        webhooks: asks webhooks.
        timeout: seconds a Python function has, and seconds an attempt may wait until one can run.
        user_exists: tells functions whether an application has a user; runs on the server's loop.
        observer: is told of each attempt how it ended (an `answers.Outcome`) and how many seconds it took.
        places: functions at once, and webhooks at once; one application may have half of either.
        max_waiting: attempts that may wait for a place.
        stuck_after: seconds after which a blocked event loop of functions is replaced.
        max_stuck_loops: blocked loops kept at once; beyond it async functions deny until one comes back.
    """

    def __init__(
        self,
        registry: Registry,
        webhooks: Webhooks,
        *,
        timeout: float,
        user_exists: UserExists,
        observer: Observer | None = None,
        places: int = 64,
        max_waiting: int = 1000,
        stuck_after: float = 1.0,
        max_stuck_loops: int = 8,
    ) -> None:
        self._registry = registry
        self._webhooks = webhooks
        self._timeout = timeout
        self._user_exists = user_exists
        self._observer = observer
        self._python_queue = FairQueue(places, max(1, places // 2), max_waiting)
        self._webhook_queue = FairQueue(places, max(1, places // 2), max_waiting)
        self._loops = Loops(stuck_after, max_stuck_loops)
        self._threads = ThreadPool()
        self._closed = False

    def authenticates(self, application: Application) -> bool:
        """Whether the application has an authentication function or webhook."""
        return application.webhook is not None or self._function_of(application) is not None

    def _function_of(self, application: Application) -> BoundFunction | None:
        own = self._registry.bound_to(application.name)
        if own is not None or application.webhook is not None:
            return own
        return self._registry.bound_to_all

    async def authenticate(self, application: Application, attempt: StartAttempt) -> Profile:
        """Asks the application's authentication function or webhook.

        Returns:
            What it says of the user.

        Raises:
            AccessDenied: it refused, raised, took too long or answered nonsense, or the application has none.
            Unavailable: too many attempts wait for it.
        """
        started = time.monotonic()
        outcome = Outcome.ABANDONED
        try:
            profile = await self._authenticate(application, attempt)
            outcome = Outcome.ALLOWED
            return profile
        except Denial as denial:
            outcome = denial.outcome
            raise
        except Unavailable:
            outcome = Outcome.OVERLOADED
            raise
        finally:
            if self._observer is not None:
                self._observer(outcome.value, time.monotonic() - started)

    async def _authenticate(self, application: Application, attempt: StartAttempt) -> Profile:
        function = self._function_of(application)
        if function is not None:
            return await self._ask_function(function, application, attempt)
        if application.webhook is None:
            raise Denial("The application has no authentication function", Outcome.FAILED)
        place = await self._enter(self._webhook_queue, application)
        try:
            return await self._webhooks.authenticate(application, application.webhook, attempt)
        finally:
            place.leave()

    async def _enter(self, queue: FairQueue, application: Application) -> Place:
        self._check_open()
        try:
            async with asyncio.timeout(self._timeout):
                place = await queue.enter(application.name)
        except (TimeoutError, QueueFull):
            log.warning("function_queue_full", application=application.name)
            raise Unavailable("Too many users are signing in") from None
        except QueueStuck:
            log.error("function_places_all_hang", application=application.name)
            raise Denial(FAILED, Outcome.FAILED) from None
        if self._closed:
            place.leave()
        self._check_open()
        return place

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The server is shutting down")

    async def _ask_function(self, function: BoundFunction, application: Application, attempt: StartAttempt) -> Profile:
        place = await self._enter(self._python_queue, application)
        where = log.bind(application=application.name, username=attempt.username, function=function.name)
        call = self._start(function, application, attempt)
        call.when_ended(place.leave)
        try:
            async with asyncio.timeout(self._timeout):
                outcome = await call.outcome
        except TimeoutError:
            where.warning("function_too_slow", seconds=self._timeout)
            raise Denial(TOO_LONG, Outcome.TIMEOUT) from None
        finally:
            if not call.ended:
                call.give_up()
                asyncio.get_running_loop().call_later(OVERRUN_GRACE, place.overrun)
        if outcome.profile is not None:
            return outcome.profile
        if isinstance(outcome.error, AccessDenied):
            raise Denial(public_message(str(outcome.error.message)), Outcome.DENIED) from None
        if isinstance(outcome.error, CannotRun):
            self._check_open()
            where.error("function_not_run")
        elif outcome.error is not None:
            where.error("function_failed", traceback=describe(outcome.error, attempt.auth_params))
        raise Denial(FAILED, Outcome.FAILED) from None

    def _start(self, function: BoundFunction, application: Application, attempt: StartAttempt) -> Call:
        event = StartSessionAttempted(
            attempt.username, MappingProxyType(attempt.auth_params), attempt.protocol, attempt.address
        )
        users = _Bridge(self._user_exists, application, self._timeout)
        if (ask := function.awaitable) is not None:
            context = Context(application.name, _AsyncUsers(users))

            async def make() -> Profile:
                return profile_from(await ask(event, context))

            return self._loops.start(make)
        decide = function.blocking
        assert decide is not None, "a bound function has one of the two forms"
        blocking_context = BlockingContext(application.name, _BlockingUsers(users))
        return self._threads.start(lambda: profile_from(decide(event, blocking_context)))

    async def close(self) -> None:
        """Cancels what is under way and ends the threads; those that hang are left behind. Idempotent."""
        self._closed = True
        await self._loops.close(CLOSE_GRACE)
        await self._threads.close(CLOSE_GRACE)
        await self._webhooks.close()


class _Bridge:
    """The way from a function's thread to the server's loop."""

    def __init__(self, user_exists: UserExists, application: Application, timeout: float) -> None:
        self._home = asyncio.get_running_loop()
        self._user_exists = user_exists
        self._application = application
        self.timeout = timeout

    def exists(self, name: str) -> Future[bool]:
        if not isinstance(name, str):
            raise TypeError("a username is a string")
        return asyncio.run_coroutine_threadsafe(self._exists(name), self._home)

    async def _exists(self, name: str) -> bool:
        return await self._user_exists(self._application, name)


class _AsyncUsers:
    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    async def exists(self, name: str) -> bool:
        return await asyncio.wrap_future(self._bridge.exists(name))


class _BlockingUsers:
    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def exists(self, name: str) -> bool:
        return self._bridge.exists(name).result(self._bridge.timeout)
