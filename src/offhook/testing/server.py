"""A server for tests: a real one, with users, in a folder that goes away with it."""

from __future__ import annotations

import asyncio
import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar, cast
from urllib.parse import urlencode

import msgspec

from offhook.errors import OffhookError
from offhook.testing.process import LOOSE, STOP_TIMEOUT, ServeProcess, ServerFailed

P = ParamSpec("P")
T = TypeVar("T")

APPLICATION = "default"
"""The application that a server makes on an empty database. Its domain is example.com."""
DEMO_USERS = {"alice@example.com": "alice's password", "bob@example.com": "bob's password"}
"""Username → password of two users, for :class:`TestServer`."""
REQUEST_TIMEOUT = 15.0
"""Seconds for a request of the admin API."""


class AdminRefused(OffhookError):
    """The admin API refused a request.

    Attributes:
        status: of HTTP.
        error: the code by which the server names the error, such as ``not_found``.
    """

    code = "admin_refused"

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(f"{status} {error}: {message}")
        self.status = status
        self.error = error


class SessionRecord(msgspec.Struct, frozen=True):
    """A session as ``offhook session list`` shows it.

    Attributes:
        id: of the session.
        user: its username.
        protocol: ``chatkitty`` or ``kandy``.
        state: ``active``, ``suspended`` or ``ended``.
        resumes: how often it was resumed.
        end_reason: why it ended, if it did.
    """

    id: int
    user: str
    protocol: str
    state: str
    resumes: int
    end_reason: str | None = None


class _Sessions(msgspec.Struct, frozen=True):
    sessions: list[SessionRecord]


class BlockingTestServer(ServeProcess):
    """What ``with TestServer() as server`` gives: a running server, for tests that are not asynchronous.

    Its methods are those of :class:`TestServer` without ``await``, and those of
    :class:`~offhook.testing.process.ServeProcess`.
    """

    __test__ = False

    _api_key: str | None = None

    @property
    def api_key(self) -> str:
        """The API key of the application. The server must have been started once."""
        if self._api_key is None:
            self._api_key = str(self.admin("GET", f"/applications/{APPLICATION}")["api_key"])
        return self._api_key

    def create_user(self, name: str, password: str | None = None, *, display_name: str | None = None) -> int:
        """Makes a user. Returns its id. Raises AdminRefused, ServerFailed."""
        given = {"name": name, "password": password, "display_name": display_name}
        body = {key: value for key, value in given.items() if value is not None}
        return cast(int, self.admin("POST", f"/applications/{APPLICATION}/users", body)["id"])

    def sessions(self, user: str | None = None, state: str = "all") -> list[SessionRecord]:
        """The newest sessions, newest first; ``state`` is live, ended or all. Raises AdminRefused, ServerFailed."""
        query = {"state": state, "size": "100"} | ({} if user is None else {"user": user})
        return msgspec.convert(self.admin("GET", f"/sessions?{urlencode(query)}"), _Sessions).sessions

    def end_session(self, session_id: int | None = None, *, user: str | None = None, text: str = "") -> int:
        """Ends sessions as an operator does.

        Args:
            session_id: of the session, or None for all of ``user``, or of everybody if that is None, too.
            user: the username.
            text: words for the client, at most 100 characters.

        Returns:
            How many it were.

        Raises:
            AdminRefused: there is no such session or user.
            ServerFailed: the server does not answer.
        """
        words = {"text": text} if text else {}
        if session_id is not None:
            self.admin("POST", f"/sessions/{session_id}/end", words)
            return 1
        body = {"application": APPLICATION, **words} | ({} if user is None else {"user": user})
        return cast(int, self.admin("POST", "/sessions/end", body)["ended"])

    def admin(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        """Asks the admin API.

        Args:
            method: of HTTP.
            path: below ``/admin/v1``, such as ``/applications/default``.
            body: what is sent as JSON.

        Returns:
            The answer.

        Raises:
            AdminRefused: the server refused it.
            ServerFailed: the server does not answer.
        """
        request = urllib.request.Request(  # noqa: S310 - our own server's
            f"{self.url}/admin/v1{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.admin_token}", "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=REQUEST_TIMEOUT) as answer:
                return msgspec.json.decode(answer.read(), type=dict[str, object])
        except urllib.error.HTTPError as refused:
            with refused:
                told = _object(refused.read())
            raise AdminRefused(refused.code, str(told.get("error", "")), str(told.get("message", ""))) from None
        except OSError as error:
            raise ServerFailed(f"The server does not answer: {error}") from None


class TestServer:
    """A real server for tests: ``offhook serve`` as a child process on free ports, in a temporary folder.

    ::

        async with TestServer(users=DEMO_USERS) as server:
            async with ChatKitty(server.api_key, host=server.host, is_secure=False) as kitty:
                ...
                await server.restart()

    With ``with`` instead of ``async with``, for tests that are not asynchronous, the server is a
    :class:`BlockingTestServer`. Leaving the context ends the process and removes the folder. The server has its usual
    settings but for its rate limits, which tests would run into, and for the time it takes to drain, which is nothing.

    Args:
        tls: whether it also serves TLS, with a certificate of its own development authority.
        users: username → password of those that are to be there.
        settings: further settings by name, as ``offhook.toml`` has them, such as ``{"request_rate": "5"}``.
        functions: the text of a Python module with the application's functions.
        data_dir: the data folder, if it is not to be a temporary one; it stays.

    Raises:
        ServerMissing: on entering; only the SDK is installed, not ``offhook[server]``.
        ServerFailed: on entering; it does not start.
    """

    __test__ = False
    __slots__ = ("_data_dir", "_folder", "_functions", "_server", "_settings", "_tls", "_users")

    def __init__(
        self,
        *,
        tls: bool = False,
        users: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        functions: str | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self._tls = tls
        self._users = dict(users or {})
        self._settings = {**LOOSE, **(settings or {})}
        self._functions = functions
        self._data_dir = data_dir
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._server: BlockingTestServer | None = None

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def blocking(self) -> BlockingTestServer:
        """The same server for code that is not asynchronous."""
        if self._server is None:
            raise RuntimeError("TestServer must be entered before it can be used")
        return self._server

    @property
    def host(self) -> str:
        """``host:port`` of the plain listener, such as ``ChatKitty(host=…, is_secure=False)`` takes."""
        return self.blocking.host

    @property
    def port(self) -> int:
        """The port of the plain listener; it stays over restarts."""
        return self.blocking.port

    @property
    def tls_host(self) -> str:
        """``host:port`` of the TLS listener, if there is one."""
        return self.blocking.tls_host

    @property
    def tls_port(self) -> int:
        """The port of the TLS listener, if there is one."""
        return self.blocking.tls_port

    @property
    def url(self) -> str:
        """URL of the plain listener."""
        return self.blocking.url

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that clients of the TLS listener must trust."""
        return self.blocking.ca_file

    @property
    def data_dir(self) -> Path:
        """The data folder."""
        return self.blocking.data_dir

    @property
    def api_key(self) -> str:
        """The API key of the application; it stays over restarts."""
        return self.blocking.api_key

    @property
    def pid(self) -> int | None:
        """The process's id, or None while it does not run."""
        return self.blocking.pid

    @property
    def users(self) -> Mapping[str, str]:
        """Username → password of the users that were asked for."""
        return self._users

    # --- what is done with it ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts the process again after :meth:`stop` or :meth:`kill`. Raises ServerFailed."""
        await self._run(self.blocking.start)

    async def stop(self, seconds: float = STOP_TIMEOUT) -> int:
        """Ends the process with SIGTERM, and kills it if that takes longer than this. Returns its exit code.

        Raises:
            ServerFailed: it had to be killed.
        """
        return await self._run(self.blocking.stop, seconds)

    async def kill(self) -> None:
        """Ends the process with SIGKILL, as a crash does."""
        await self._run(self.blocking.kill)

    async def restart(self) -> None:
        """Ends the process with SIGTERM and starts it again, on the same ports and data. Raises ServerFailed."""
        await self._run(self.blocking.restart)

    async def create_user(self, name: str, password: str | None = None, *, display_name: str | None = None) -> int:
        """Makes a user. Returns its id. Raises AdminRefused, ServerFailed."""
        return await self._run(self.blocking.create_user, name, password, display_name=display_name)

    async def sessions(self, user: str | None = None, state: str = "all") -> list[SessionRecord]:
        """The newest sessions, newest first; ``state`` is live, ended or all. Raises AdminRefused, ServerFailed."""
        return await self._run(self.blocking.sessions, user, state)

    async def end_session(self, session_id: int | None = None, *, user: str | None = None, text: str = "") -> int:
        """Ends sessions as an operator does; see :meth:`BlockingTestServer.end_session`."""
        return await self._run(self.blocking.end_session, session_id, user=user, text=text)

    async def admin(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        """Asks the admin API; see :meth:`BlockingTestServer.admin`."""
        return await self._run(self.blocking.admin, method, path, body)

    async def cli(self, *arguments: str, stdin: str | None = None) -> object:
        """Runs ``offhook … --json`` on the server and returns what it printed. Raises CommandFailed."""
        return await self._run(self.blocking.cli, *arguments, stdin=stdin)

    # --- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> BlockingTestServer:
        server = self._make()
        try:
            self._begin()
        except BaseException:
            self._close()
            raise
        return server

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    async def __aenter__(self) -> TestServer:
        self._make()
        try:
            await self._run(self._begin)
        except BaseException:
            await self._run(self._close)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._run(self._close)

    def _make(self) -> BlockingTestServer:
        if self._server is not None:
            raise RuntimeError("TestServer is in use")
        data_dir = self._data_dir
        if data_dir is None:
            # A process that was killed may leave files behind that are still being written.
            self._folder = tempfile.TemporaryDirectory(prefix="offhook-", ignore_cleanup_errors=True)
            data_dir = Path(self._folder.name)
        try:
            self._server = BlockingTestServer(
                data_dir, tls=self._tls, settings=self._settings, functions=self._functions
            )
        except BaseException:
            self._close()
            raise
        return self._server

    def _begin(self) -> None:
        server = self.blocking
        server.start()
        # Asked for once, here, so that the property never waits for the server.
        assert server.api_key
        for name, password in self._users.items():
            server.create_user(name, password)

    def _close(self) -> None:
        server, self._server = self._server, None
        folder, self._folder = self._folder, None
        try:
            if server is not None:
                server.stop()
        finally:
            if folder is not None:
                folder.cleanup()

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls something that blocks in a thread. Cancelling waits until it is over, so that nothing is left."""
        work = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if self._server is not None:
                self._server.give_up()
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # nobody asks for it any more
            raise


def _object(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except msgspec.DecodeError:
        return {}
