"""The decorators that bind functions to triggers, and what a module bound."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast, overload

from offhook.errors import InvalidInput
from offhook.functions.events import BlockingContext, Context, StartSessionAttempted

AsyncFunction: TypeAlias = Callable[[StartSessionAttempted, Context], Awaitable[object]]
BlockingFunction: TypeAlias = Callable[[StartSessionAttempted, BlockingContext], object]

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class BoundFunction:
    """A function bound to the start of sessions; one of the two forms is set.

    Attributes:
        name: where it is, for logs: module, name and line.
        awaitable: the function, if it is a coroutine function.
        blocking: the function, if it is a plain one.
    """

    name: str
    awaitable: AsyncFunction | None = None
    blocking: BlockingFunction | None = None


class Registry:
    """The functions of one module: at most one for each application, and one for all others."""

    def __init__(self) -> None:
        self._functions: dict[str | None, BoundFunction] = {}

    def add(self, application: str | None, function: Callable[..., object]) -> None:
        """Binds a function to one application, or with None to every application without its own.

        Raises:
            InvalidInput: there is one already, or it does not take an event and a context.
        """
        bound = _bind(function)
        if (other := self._functions.get(application)) is not None:
            whom = "every application" if application is None else f"the application {application!r}"
            raise InvalidInput(f"{bound.name} and {other.name} are both bound to the start of sessions of {whom}")
        self._functions[application] = bound

    def bound_to(self, application: str) -> BoundFunction | None:
        """The function bound to this application by name."""
        return self._functions.get(application)

    @property
    def bound_to_all(self) -> BoundFunction | None:
        """The function bound to no application by name."""
        return self._functions.get(None)

    def __len__(self) -> int:
        return len(self._functions)


_collecting: ContextVar[Registry | None] = ContextVar("offhook_functions", default=None)


@contextmanager
def collecting(registry: Registry) -> Iterator[None]:
    """What is decorated inside this context is bound in ``registry``."""
    token = _collecting.set(registry)
    try:
        yield
    finally:
        _collecting.reset(token)


class Triggers:
    """The decorators, one a trigger. Use the instance `on`.

    While the server loads the application's module they bind; at any other time (say, in the application's
    own tests) they leave the function as it is.
    """

    @overload
    def user_attempted_start_session(self, function: F, /) -> F: ...

    @overload
    def user_attempted_start_session(self, /, *, application: str | None = None) -> Callable[[F], F]: ...

    def user_attempted_start_session(
        self, function: F | None = None, /, *, application: str | None = None
    ) -> F | Callable[[F], F]:
        """Binds a function that decides whether a user may start a session.

        The function takes a `StartSessionAttempted` and a `Context` (a plain ``def``: a `BlockingContext`).
        It returns None or a dictionary with ``display_name`` (text) and ``properties`` (a JSON object of at
        most 16 KiB), both optional, which are merged into the user; or it raises `AccessDenied`::

            @on.user_attempted_start_session(application="shop")
            def authenticate(event, context):
                if event.auth_params.get("pin") != pins.get(event.username):
                    raise AccessDenied("Wrong PIN")

        Args:
            function: the function, when used without parentheses.
            application: the one application it is for; without it, every application that has neither a
                function of its own nor a webhook.

        Returns:
            The function, unchanged.

        Raises:
            InvalidInput: while loading: a second function for the same application, or one with other
                parameters.
        """

        def bind(function: F) -> F:
            if (registry := _collecting.get()) is not None:
                registry.add(application, function)
            return function

        return bind if function is None else bind(function)


on = Triggers()


def _bind(function: Callable[..., object]) -> BoundFunction:
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
    if code is not None:
        name += f" (line {code.co_firstlineno})"
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise InvalidInput(f"{name} must take two arguments, event and context") from error
    # The second: an object whose class has ``async def __call__``.
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return BoundFunction(name, awaitable=cast(AsyncFunction, function))
    return BoundFunction(name, blocking=cast(BlockingFunction, function))
