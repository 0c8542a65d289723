"""What all requests and sockets of Kandy clients share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from offhook.domain.limits import Rate
from offhook.ports import Clock
from offhook.server.metrics import Metrics
from offhook.server.timers import TimerWheel
from offhook.services.applications import ApplicationService
from offhook.services.credentials import Credentials
from offhook.services.hub import Hub
from offhook.services.logins import Logins
from offhook.services.messages import MessageService
from offhook.services.reaper import Reaper
from offhook.services.sessions import SessionService
from offhook.services.signing import Signer
from offhook.services.subscriptions import SubscriptionService
from offhook.services.users import UserService

if TYPE_CHECKING:
    from offhook.gateways.kandy.socket import NotificationSocket


class Recent:
    """The numbers that were added last.

    Args:
        capacity: how many of them.
    """

    __slots__ = ("_capacity", "_numbers")

    def __init__(self, capacity: int = 5_000) -> None:
        self._capacity = capacity
        self._numbers: OrderedDict[int, None] = OrderedDict()

    def add(self, number: int) -> None:
        self._numbers[number] = None
        if len(self._numbers) > self._capacity:
            self._numbers.popitem(last=False)

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may do.

    Attributes:
        requests: REST requests a second of one user from one address; beyond it they are refused.
        frames: messages a second on one socket; beyond it the socket is closed.
        guesses: notification channels that are none, a second from one address; beyond it the answer is another.
        max_body: bytes of a request's body.
    """

    requests: Rate
    frames: Rate
    guesses: Rate
    max_body: int


@dataclass(frozen=True, slots=True)
class Turn:
    """The TURN server's side of what is told to clients.

    Attributes:
        secret: shared with the TURN server (coturn's ``static-auth-secret``).
        lifetime: seconds that a user name and password for it are good.
    """

    secret: str = field(repr=False)
    lifetime: float


@dataclass(frozen=True, slots=True)
class Gateway:
    """The services, limits and clocks that requests and sockets work with.

    Attributes:
        draining: tells whether clients are being sent away.
        sockets: those that are open now.
        newest: of those, the latest one of each session.
        gone: sessions whose clients were told that they are gone, lately.
    """

    applications: ApplicationService
    users: UserService
    sessions: SessionService
    subscriptions: SubscriptionService
    messages: MessageService
    credentials: Credentials
    logins: Logins
    hub: Hub
    reaper: Reaper
    signer: Signer
    clock: Clock
    timers: TimerWheel
    metrics: Metrics
    limits: Limits
    turn: Turn
    draining: Callable[[], bool]
    sockets: set[NotificationSocket] = field(default_factory=set)
    newest: dict[int, NotificationSocket] = field(default_factory=dict)
    gone: Recent = field(default_factory=Recent)
