"""A Kandy client as the SDKs are one: its requests say who it is, and its socket comes back by their rule."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

SERVICES = ("call", "Presence", "IM")
CACHE = 100
"""Event ids that the SDKs remember (Kandy protocol notes, 4.2)."""
PING_EVERY = 30.0
FINAL = 1000
TIMEOUT = 15.0
ENDS = {"gone": "GONE", "websocketOverridden": "WS_OVERRIDDEN"}
"""Notifications that end a subscription, and what the SDKs call that (3.8)."""


class Lost(Exception):
    """A request got no answer."""


class Refused(Exception):
    """The server answered with an error.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status} {body}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Account:
    """How a client proves who it is (Kandy protocol notes, 2.1 and 2.4).

    Attributes:
        username: who it is.
        password: for Basic credentials, or for UC's token request.
        bearer: a JWT; it comes before the password.
        uc: whether it is a UC client, which shows a token in every query.
    """

    username: str
    password: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)
    uc: bool = False

    @property
    def basic(self) -> str:
        """The Basic credentials."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Rule:
    """When the SDKs try to open their socket again (Kandy protocol notes, 4.4).

    Attributes:
        delay: seconds from the start of one failed attempt to the next.
        limit: failed attempts in all.
    """

    delay: float = 5.0
    limit: int = 5


@dataclass(frozen=True, slots=True)
class Text:
    """A message that was notified."""

    event_id: str
    sender: str
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """The presence of a user that was notified.

    Attributes:
        at: when, on the event loop's clock.
    """

    at: float
    event_id: str
    status: str
    activity: str
    note: str


class KandyClient:
    """One page with one subscription at a time.

    Args:
        url: of the server.
        account: who it is.
        rule: when it tries to open its socket again.
        device: tells its browser from others.

    Attributes:
        texts: the messages that came, each once.
        presence: name as watched → what was shown of that user, in order.
        duplicates: notifications that were dropped since their id was known.
        attempts: upgrade requests so far.
        opens: sockets that were open so far.
        closes: the close codes of those that are closed.
        reason: why it is over, as the SDKs call it; None while it is not.
        reasons: all that it ever was.
        session_id: the last part of the subscription's path.
        wrongs: what must not happen, but did.
        up: set while the socket is open.
        socket_at: URL of the server where the socket is opened, if that is another one.
    """

    def __init__(self, url: str, account: Account, rule: Rule = Rule(), device: str = "one") -> None:
        self._url = url
        self._rule = rule
        self._token = ""
        self._channel = ""
        self._path = ""
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._ids: OrderedDict[str, None] = OrderedDict()
        agent = "uc-js-sdk/5.2.0" if account.uc else "link-js-sdk/5.2.0"
        self._http = httpx.AsyncClient(
            base_url=url,
            trust_env=False,
            timeout=TIMEOUT,
            headers={
                "x-cpaas-agent": agent,
                "origin": "https://page.example.test",
                "user-agent": f"Mozilla/5.0 ({device})",
            },
        )
        self.account = account
        self.name = account.username
        self.texts: list[Text] = []
        self.presence: dict[str, list[Shown]] = {}
        self.duplicates = 0
        self.attempts = 0
        self.opens = 0
        self.closes: list[int] = []
        self.reason: str | None = None
        self.reasons: list[str] = []
        self.session_id = ""
        self.services: tuple[str, ...] = ()
        self.wrongs: list[str] = []
        self.up = asyncio.Event()
        self.socket_at: str | None = None
        self.over = asyncio.Event()
        self.listener: Callable[[dict[str, object]], None] | None = None

    # --- the subscription -------------------------------------------------------------------------------------------

    async def subscribe(self, *services: str, expires: int = 3600) -> None:
        """Signs in, subscribes and opens the socket.

        Raises:
            Lost: the server does not answer.
            Refused: it refuses, or no socket could be opened by the rule.
        """
        account = self.account
        if account.uc and not self._token:
            made = await self._ask("GET", "/v2.0/auth/mk_token", {"authorization": account.basic}, {"refresh": "y"})
            self._token = str(_object(made, "success")["access_token"])
        await self._adopt("POST", f"{self._base}/subscription", services or SERVICES, expires)
        await self.come_back()

    async def come_back(self) -> None:
        """Opens the socket of the subscription that it has. Raises Refused."""
        self.reason = None
        self.over.clear()
        self._task = asyncio.create_task(self._live(), name=f"kandy {self.name}")
        waits = [asyncio.create_task(self.up.wait()), asyncio.create_task(self.over.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self.over.is_set():
            raise Refused(0, f"no socket: {self.reason}")

    async def renew(self, *services: str, expires: int = 3600) -> None:
        """Lets the subscription go on (3.5). Raises Lost, Refused."""
        await self._adopt("PUT", self._path, services or self.services, expires)

    async def _adopt(self, method: str, path: str, services: tuple[str, ...], expires: int) -> None:
        asked = {
            "expires": expires,
            "service": list(services),
            "localization": "English_US",
            "useTurn": True,
            "notificationType": "WebSocket",
            "forceLogOut": "true",
        }
        answer = _object(await self.ask(method, path, {"subscribeRequest": asked}), "subscribeResponse")
        params = _object(answer, "subscriptionParams")
        granted = params["service"]
        assert isinstance(granted, list)
        self.services = tuple(granted)
        self._path = str(answer["subscription"])
        self._channel = str(params["notificationChannel"])
        self.session_id = self._path.rpartition("/")[2]

    async def unsubscribe(self) -> None:
        """Ends the subscription, then closes the socket (3.6). Raises Lost, Refused."""
        await self.ask("DELETE", self._path)
        await self._stop("UNSUBSCRIBED")

    async def vanish(self) -> None:
        """Goes away without a word and does not come back."""
        await self._stop("VANISHED")

    async def close(self) -> None:
        """Goes away and frees all it has."""
        await self._stop("CLOSED")
        await self._http.aclose()

    async def _stop(self, reason: str) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, Exception):
                self.wrongs.append(f"the client ended by itself: {outcome!r}")
        self._over(self.reason or reason)

    def cut(self) -> None:
        """Breaks the connection under the socket, as a network does."""
        if self._socket is not None:
            self._socket.transport.abort()

    # --- what it does -----------------------------------------------------------------------------------------------

    async def send(self, to: str, text: str) -> str:
        """Sends a message. Returns its id. Raises Lost, Refused."""
        if self.account.uc:
            answer = await self.ask("GET", "/v2.0/rm/send", to=to, txt=text)
            if "error" in answer:
                raise Refused(200, json.dumps(answer))
            return str(_object(answer, "success")["id"])
        body = {"imRequest": {"charset": "UTF-8", "toUrl": to, "message": text, "type": "A2"}}
        answer = await self.ask("POST", f"{self._base}/instantmessage", body)
        return str(_object(answer, "imResponse")["messageId"])

    async def show(self, status: str = "open", activity: str = "active", note: str = "") -> None:
        """Chooses the user's presence (5.1). Raises Lost, Refused."""
        said = {"status": status, "activity": activity, "note": note}
        await self.ask("POST", f"{self._base}/presence", {"presenceRequest": said})

    async def watch(self, *names: str, action: str = "watch") -> None:
        """Asks to be told of users' presence (5.2). Raises Lost, Refused."""
        asked = {"userList": list(names), "action": action}
        await self.ask("POST", f"{self._base}/presenceWatcher", {"presenceWatcherRequest": asked})

    async def ask(self, method: str, path: str, body: object = None, **query: str) -> dict[str, object]:
        """Sends a request with the client's credentials. Raises Lost, Refused."""
        headers: dict[str, str] = {}
        if self.account.uc:
            query["token"] = self._token
        elif self.account.bearer:
            headers["authorization"] = f"Bearer {self.account.bearer}"
        else:
            headers["authorization"] = self.account.basic
        return await self._ask(method, path, headers, query, body)

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str], query: Mapping[str, str], body: object = None
    ) -> dict[str, object]:
        try:
            answer = await self._http.request(method, path, headers=headers, params=query, json=body)
        except httpx.TransportError as error:
            raise Lost(repr(error)) from None
        if not answer.is_success:
            raise Refused(answer.status_code, answer.text)
        value = answer.json()
        assert isinstance(value, dict)
        return value

    @property
    def _base(self) -> str:
        return f"/rest/version/1/user/{self.name}"

    # --- the socket -------------------------------------------------------------------------------------------------

    @property
    def socket_url(self) -> str:
        """Where the socket is opened, with the token where one is shown."""
        query = ""
        if self.account.uc:
            query = f"?token={quote(self._token)}"
        elif self.account.bearer:
            query = f"?access_token={quote(self.account.bearer)}"
        return (self.socket_at or self._url).replace("http", "ws", 1) + self._channel + query

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while self.reason is None:
            began = loop.time()
            self.attempts += 1
            try:
                socket = await connect(
                    self.socket_url,
                    compression=None,
                    proxy=None,
                    max_size=None,
                    ping_interval=None,
                    open_timeout=max(2.0, self._rule.delay),
                    close_timeout=1,
                )
            except (OSError, EOFError, TimeoutError, WebSocketException):
                failures += 1
                if failures >= self._rule.limit:
                    self._over("LOST_CONNECTION")
                    return
                await asyncio.sleep(max(0.0, began + self._rule.delay - loop.time()))
                continue
            failures = 0
            await self._one_socket(socket)

    async def _one_socket(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.opens += 1
        self.up.set()
        try:
            while self.reason is None:
                await socket.send('{"message_type":"ping"}')
                await self._hear(socket)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else 1006
            self.closes.append(code)
            if code == FINAL:
                self._over("LOST_CONNECTION")
        finally:
            self.up.clear()
            self._socket = None
            socket.transport.abort()

    async def _hear(self, socket: ClientConnection) -> None:
        """Takes what comes until it is time for the next sign of life, or all is over."""
        try:
            async with asyncio.timeout(PING_EVERY):
                while self.reason is None:
                    await self._take(socket, await socket.recv())
        except TimeoutError:
            pass

    async def _take(self, socket: ClientConnection, data: str | bytes) -> None:
        value = json.loads(data)
        if "connCheck" in value:
            await socket.send('{"connAck":{}}')
            return
        notification = value.get("notificationMessage")
        if isinstance(data, bytes) or not isinstance(notification, dict):
            self.wrongs.append(f"no notification: {data!r}")
            return
        # UC goes by ``id`` first.
        name = (notification.get("id") if self.account.uc else None) or notification.get("eventId")
        if not isinstance(name, str):
            self.wrongs.append(f"a notification without an id: {data!r}")
        elif name in self._ids:
            self.duplicates += 1
        else:
            self._ids[name] = None
            if len(self._ids) > CACHE:
                self._ids.popitem(last=False)
            self._accept(name, notification)

    def _accept(self, event_id: str, notification: dict[str, object]) -> None:
        kind = str(notification.get("eventType") or notification.get("event"))
        if kind in ENDS:
            self._over(ENDS[kind])
        elif kind == "IM":
            params = _object(notification, "imnotificationParams")
            sender = str(params["primaryContact"]).removeprefix("sip:")
            self.texts.append(Text(event_id, sender, str(params["msgText"])))
        elif kind == "im":
            self.texts.append(Text(event_id, str(notification["From"]), str(notification["txt"])))
        elif kind == "presenceWatcher":
            params = _object(notification, "presenceWatcherNotificationParams")
            at = asyncio.get_running_loop().time()
            shown = Shown(at, event_id, str(params["status"]), str(params["activity"]), str(params.get("note", "")))
            self.presence.setdefault(str(params["name"]), []).append(shown)
        else:
            self.wrongs.append(f"an unknown kind of notification: {kind}")
        if self.listener is not None:
            self.listener(notification)

    def _over(self, reason: str) -> None:
        self.reason = reason
        self.reasons.append(reason)
        self.over.set()


def _object(value: Mapping[str, object], key: str) -> dict[str, object]:
    found = value[key]
    assert isinstance(found, dict), value
    return found
