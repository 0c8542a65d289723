"""What all HTTP connections and WebSockets of a server share."""

from __future__ import annotations

from dataclasses import dataclass

from offhook.server.admission import Admission
from offhook.server.metrics import Metrics
from offhook.server.proxies import TrustedProxies
from offhook.server.timers import TimerWheel


@dataclass(slots=True)
class Gate:
    """What all connections share.

    Attributes:
        timers: the process's timer wheel.
        admission: who may connect.
        proxies: whom to believe who is behind a connection.
        metrics: where it is counted.
        head_timeout: seconds in which a request's head has to come.
        write_timeout: seconds in which a client may take nothing of what waits for it.
        refused: refused connections that wait for their answer.
        stopping: whether no more connections are accepted.
    """

    timers: TimerWheel
    admission: Admission
    proxies: TrustedProxies
    metrics: Metrics
    head_timeout: float
    write_timeout: float
    refused: int = 0
    stopping: bool = False

    def leave(self, listener: str, address: str | None) -> None:
        """Gives back what a connection had.

        Args:
            listener: where it came in.
            address: for whom it was counted, if it was.
        """
        self.metrics.connections[listener] -= 1
        self.admission.leave()
        if address is not None:
            self.admission.leave_from(address)
