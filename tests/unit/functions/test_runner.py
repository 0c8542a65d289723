from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs
from tests.unit.functions.http_receiver import always, receiving, response
from tests.unit.functions.support import application, attempt, function_threads, registry, running, until

from offhook.domain.accounts import WebhookPolicy
from offhook.errors import AccessDenied, Unavailable
from offhook.functions import BlockingContext, Context, StartSessionAttempted
from offhook.functions.answers import FAILED, TOO_LONG
from offhook.functions.runner import FunctionRunner
from offhook.ports import Profile

Event = StartSessionAttempted


async def jane_only(event: Event, context: Context) -> object:
    await asyncio.sleep(0)
    if event.auth_params.get("password") != "hunter2":
        raise AccessDenied("Wrong\npassword")
    return {"displayName": event.username + event.protocol, "properties": {"app": context.application}}


def jane_only_blocking(event: Event, context: BlockingContext) -> object:
    if event.auth_params.get("password") != "hunter2":
        raise AccessDenied("Wrong\npassword")
    return {"displayName": event.username + event.protocol, "properties": {"app": context.application}}


@pytest.mark.parametrize("function", [jane_only, jane_only_blocking])
async def test_allows_and_denies(function: Callable[..., object]) -> None:
    observed: list[tuple[str, float]] = []
    async with running(registry(function), observed=observed) as runner:
        assert runner.authenticates(application())
        profile = await runner.authenticate(application(), attempt(password="hunter2"))
        assert profile == Profile("janechatkitty", {"app": "shop"})
        with pytest.raises(AccessDenied, match=r"^Wrong password$"):
            await runner.authenticate(application(), attempt(password="guess"))
        with pytest.raises(AccessDenied, match=r"^Wrong password$"):
            await runner.authenticate(application(), attempt())
    assert [outcome for outcome, _ in observed] == ["allowed", "denied", "denied"]
    assert all(0 <= seconds < 5 for _, seconds in observed)


async def test_the_auth_params_are_read_only() -> None:
    async def meddle(event: Event, context: Context) -> None:
        event.auth_params["admin"] = True  # type: ignore[index]

    async with running(registry(meddle)) as runner:
        with pytest.raises(AccessDenied, match=f"^{FAILED}$"):
            await runner.authenticate(application(), attempt())


async def test_functions_can_look_users_up() -> None:
    async def ask(event: Event, context: Context) -> object:
        return {"properties": {"known": await context.users.exists(event.username)}}

    def ask_blocking(event: Event, context: BlockingContext) -> object:
        return {"properties": {"known": context.users.exists(event.username)}}

    for function in (ask, ask_blocking):
        async with running(registry(function)) as runner:
            for name, known in (("jane", True), ("joe", False)):
                profile = await runner.authenticate(application(), attempt(name))
                assert profile.properties == {"known": known}


async def test_functions_run_outside_the_servers_thread_and_async_ones_share_a_loop() -> None:
    seen: list[tuple[int, int]] = []

    async def note(event: Event, context: Context) -> None:
        seen.append((threading.get_ident(), id(asyncio.get_running_loop())))

    async with running(registry(note)) as runner:
        await runner.authenticate(application(), attempt())
        await runner.authenticate(application(), attempt())
    assert seen[0] == seen[1]
    assert seen[0][0] != threading.get_ident()


async def raises(event: Event, context: Context) -> None:
    raise ValueError(f"the database refused {event.auth_params['password']}")


def raises_blocking(event: Event, context: BlockingContext) -> None:
    int(str(event.auth_params["password"]))


async def exits(event: Event, context: Context) -> None:
    sys.exit(str(event.auth_params["password"]))


def exits_blocking(event: Event, context: BlockingContext) -> None:
    sys.exit(str(event.auth_params["password"]))


def stops(event: Event, context: BlockingContext) -> None:
    raise StopIteration(event.auth_params["password"])


async def cancels(event: Event, context: Context) -> None:
    raise asyncio.CancelledError


async def refuses_badly(event: Event, context: Context) -> None:
    raise AccessDenied  # type: ignore[call-arg]


async def nonsense(event: Event, context: Context) -> bool:
    return False


def forgot_async(event: Event, context: BlockingContext) -> object:
    return jane_only(event, context)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "function",
    [raises, raises_blocking, exits, exits_blocking, stops, cancels, refuses_badly, nonsense, forgot_async],
)
async def test_what_breaks_denies_in_general_terms_and_is_logged_without_credentials(
    function: Callable[..., object],
) -> None:
    observed: list[tuple[str, float]] = []
    async with running(registry(function, good=jane_only), observed=observed) as runner:
        with capture_logs() as logs, pytest.raises(AccessDenied) as caught:
            await runner.authenticate(application(), attempt(password="hunter2"))
        assert caught.value.message == FAILED
        assert [entry["event"] for entry in logs] == ["function_failed"]
        assert function.__name__ in logs[0]["function"]
        assert logs[0]["traceback"]
        assert "hunter2" not in str(logs)
        # The thread and the loop are as good as before.
        assert await runner.authenticate(application("good"), attempt(app="good", password="hunter2"))
    assert [outcome for outcome, _ in observed] == ["failed", "allowed"]


async def test_a_function_that_hangs_is_cancelled_in_time() -> None:
    cancelled = threading.Event()

    async def hangs(event: Event, context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    observed: list[tuple[str, float]] = []
    async with running(registry(hangs), timeout=0.1, observed=observed) as runner:
        with pytest.raises(AccessDenied, match=f"^{TOO_LONG}$"):
            await runner.authenticate(application(), attempt())
        await until(cancelled.is_set)
    assert [outcome for outcome, _ in observed] == ["timeout"]
    assert 0.1 <= observed[0][1] < 2


async def test_a_client_that_leaves_cancels_the_function() -> None:
    entered, cancelled = threading.Event(), threading.Event()

    async def hangs(event: Event, context: Context) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    observed: list[tuple[str, float]] = []
    async with running(registry(hangs), observed=observed) as runner:
        task = asyncio.create_task(runner.authenticate(application(), attempt()))
        await until(entered.is_set)
        task.cancel()
        await until(cancelled.is_set)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [outcome for outcome, _ in observed] == ["abandoned"]


async def all_at_once(runner: FunctionRunner, names: list[str]) -> list[Profile | BaseException]:
    calls = [runner.authenticate(application(), attempt(name)) for name in names]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_of_a_hundred_at_once_only_the_one_that_blocks_the_loop_is_denied() -> None:
    release = threading.Event()
    starts: list[str] = []

    async def mostly_good(event: Event, context: Context) -> object:
        starts.append(event.username)
        await asyncio.sleep(0.01)
        if event.username == "user37":
            release.wait(20)  # blocks the loop: the mistake this is about
        await asyncio.sleep(0.01)
        return {"display_name": event.username}

    names = [f"user{number}" for number in range(100)]
    async with running(registry(mostly_good), timeout=3.0, stuck_after=0.2) as runner:
        with capture_logs() as logs:
            began = time.monotonic()
            others = asyncio.create_task(all_at_once(runner, [name for name in names if name != "user37"]))
            stuck = asyncio.create_task(all_at_once(runner, ["user37"]))
            good = await others
            took = time.monotonic() - began
            [bad] = await stuck
        assert all(isinstance(result, Profile) for result in good), good
        assert took < 2.5, "they waited for the one that is stuck"
        assert isinstance(bad, AccessDenied)
        assert bad.message == TOO_LONG
        blocked = [entry for entry in logs if entry["event"] == "function_blocks_loop"]
        assert len(blocked) == 1
        assert "release.wait(20)" in blocked[0]["stack"]
        assert starts.count("user37") == 1, "what blocks is not started again"
        release.set()
        await until(lambda: len(function_threads()) == 1)  # the retired loop ends once it is free
        assert isinstance(await runner.authenticate(application(), attempt("joe")), Profile)


async def test_a_loop_blocked_for_a_moment_lets_its_call_finish() -> None:
    async def slow(event: Event, context: Context) -> object:
        time.sleep(0.5)
        return {"display_name": "done"}

    async with running(registry(slow), stuck_after=0.1) as runner:
        assert (await runner.authenticate(application(), attempt())).display_name == "done"
        await until(lambda: len(function_threads()) == 1)


async def test_the_number_of_blocked_loops_is_bounded_and_they_recover() -> None:
    release = threading.Event()

    async def blocks(event: Event, context: Context) -> None:
        if event.username != "good":
            release.wait(30)

    async with running(registry(blocks), timeout=3.0, stuck_after=0.1, max_stuck_loops=2) as runner:
        with capture_logs() as logs:
            tasks = [
                asyncio.create_task(runner.authenticate(application(), attempt(f"bad{number}"))) for number in range(3)
            ]
            await until(lambda: any(entry["event"] == "functions_block_every_loop" for entry in logs))
            assert len(function_threads()) == 3
            began = time.monotonic()
            with pytest.raises(AccessDenied, match=f"^{FAILED}$"):
                await runner.authenticate(application(), attempt("good"))
            assert time.monotonic() - began < 0.5, "it was not denied quickly"
            assert "function_not_run" in [entry["event"] for entry in logs]
        release.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, Profile | AccessDenied) for result in results)

        async def recovered() -> bool:
            try:
                return isinstance(await runner.authenticate(application(), attempt("good")), Profile)
            except AccessDenied:
                return False

        deadline = time.monotonic() + 5
        while not await recovered():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_plain_functions_that_hang_hold_bounded_threads_and_then_deny_at_once() -> None:
    release = threading.Event()

    def hangs(event: Event, context: BlockingContext) -> None:
        if event.username == "bad":
            release.wait(30)

    functions = registry(shop=hangs, other=hangs)
    async with running(functions, timeout=0.2, places=4) as runner:
        results = await all_at_once(runner, ["bad", "bad"])
        assert [str(result) for result in results] == [TOO_LONG, TOO_LONG]
        with capture_logs() as logs:
            await until_denied(runner)
            began = time.monotonic()
            with pytest.raises(AccessDenied, match=f"^{FAILED}$"):
                await runner.authenticate(application(), attempt("good"))
            assert time.monotonic() - began < 0.15
        assert logs[-1]["event"] == "function_places_all_hang"
        # Another application has its own share of the places.
        assert await runner.authenticate(application("other"), attempt("good", app="other")) == Profile()
        assert len(function_threads()) == 3
        release.set()
        await until(lambda: runner._python_queue.held == 0)
        assert await runner.authenticate(application(), attempt("good")) == Profile()


async def until_denied(runner: FunctionRunner) -> None:
    """Waits until the calls that hang count as such."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            await runner.authenticate(application(), attempt("good"))
        except AccessDenied as denial:
            assert denial.message == FAILED
            return
        except Unavailable:
            pass  # it waited for a place in vain
    pytest.fail("attempts were not denied")


async def test_too_many_attempts_are_told_to_come_back() -> None:
    release = threading.Event()

    def waits(event: Event, context: BlockingContext) -> None:
        release.wait(10)

    observed: list[tuple[str, float]] = []
    async with running(registry(waits), places=2, max_waiting=1, observed=observed) as runner:
        first = asyncio.create_task(runner.authenticate(application(), attempt()))
        second = asyncio.create_task(runner.authenticate(application(), attempt()))
        await until(lambda: runner._python_queue.waiting == 1)
        with pytest.raises(Unavailable):
            await runner.authenticate(application(), attempt())
        release.set()
        assert [await first, await second] == [Profile(), Profile()]
    assert [outcome for outcome, _ in observed] == ["overloaded", "allowed", "allowed"]


async def test_which_function_is_asked() -> None:
    async def own(event: Event, context: Context) -> object:
        return {"display_name": "own"}

    async def any_other(event: Event, context: Context) -> object:
        return {"display_name": "all"}

    async with receiving(always(response(200, b'{"displayName":"webhook"}'))) as receiver:
        hook = WebhookPolicy(receiver.url)

        async def asked(runner: FunctionRunner, name: str, webhook: WebhookPolicy | None) -> str | None:
            app = application(name, webhook)
            if not runner.authenticates(app):
                with pytest.raises(AccessDenied):
                    await runner.authenticate(app, attempt(app=name))
                return None
            return (await runner.authenticate(app, attempt(app=name))).display_name

        async with running(registry(any_other, shop=own)) as runner:
            assert await asked(runner, "shop", hook) == "own"
            assert await asked(runner, "blog", hook) == "webhook"
            assert await asked(runner, "blog", None) == "all"
        async with running(registry(shop=own)) as runner:
            assert await asked(runner, "shop", None) == "own"
            assert await asked(runner, "blog", hook) == "webhook"
            assert await asked(runner, "blog", None) is None


async def test_close_ends_what_is_under_way_and_leaves_no_thread_and_no_task() -> None:
    before, tasks_before = function_threads(), asyncio.all_tasks()

    async def hangs(event: Event, context: Context) -> None:
        await asyncio.Event().wait()

    release = threading.Event()

    def hangs_blocking(event: Event, context: BlockingContext) -> None:
        release.wait(30)

    functions = registry(shop=hangs, other=hangs_blocking)
    async with running(functions, places=2) as runner:
        apps = ["shop", "shop", "shop", "other"]
        tasks = [asyncio.create_task(runner.authenticate(application(app), attempt(app=app))) for app in apps]
        await until(lambda: len(function_threads()) == 2)
        closing = asyncio.create_task(runner.close())
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results), results
        release.set()
        await closing
        await runner.close()
        with pytest.raises(Unavailable):
            await runner.authenticate(application(), attempt())
    assert function_threads() == before
    assert asyncio.all_tasks() == tasks_before


async def test_close_does_not_wait_for_threads_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offhook.functions.runner.CLOSE_GRACE", 0.1)
    release = threading.Event()

    async def blocks(event: Event, context: Context) -> None:
        release.wait(30)

    def blocks_too(event: Event, context: BlockingContext) -> None:
        release.wait(30)

    async with running(registry(shop=blocks, other=blocks_too), timeout=0.1) as runner:
        for name in ("shop", "other"):
            with pytest.raises(AccessDenied):
                await runner.authenticate(application(name), attempt(app=name))
        with capture_logs() as logs:
            began = time.monotonic()
            await runner.close()
        assert time.monotonic() - began < 2
    events = [entry["event"] for entry in logs]
    assert "function_loops_left_behind" in events
    assert "function_threads_left_behind" in events
    release.set()
    await until(lambda: not function_threads())
