"""Sockets to listen on: those of one process, or those of several that share their ports.

Several processes have a socket each on the same port (``SO_REUSEPORT``), and the kernel spreads new connections over
them. Such sockets are bound before there is a process to use them, and outlive it: what comes while a process is
replaced waits in its socket's queue.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from offhook.errors import InvalidInput
from offhook.settings import Settings

BACKLOG = 4096
"""Connections that may wait to be accepted."""
PLAIN, SECURE, METRICS = "http", "https", "metrics"
"""What a listener serves: everything, plain or by TLS, or only what watches the process."""

Bound = tuple[str, socket.socket]
"""What a listener serves, and its socket."""


@dataclass(eq=False, slots=True)
class Slot:
    """The place of one worker among several.

    Attributes:
        number: from 0.
        sockets: what it listens on; bound, and open for as long as the place exists, whoever fills it.
    """

    number: int
    sockets: Sequence[Bound]

    def turn_away(self) -> None:
        """Has nobody wait here, where nobody serves for now: new connections come to the other slots.

        Those that wait are reset. It lasts until whoever fills the slot listens.

        Raises:
            OSError: no sockets can be made; then everything stays as it was.
        """
        renewed: list[Bound] = []
        try:
            for name, sock in self.sockets:
                # What is the slot's own, as the port of its metrics, takes nothing from the other slots.
                renewed.append((name, sock if name == METRICS else _renewed(sock)))
        except OSError:
            close_all(sock for name, sock in renewed if name != METRICS)
            raise
        before, self.sockets = self.sockets, tuple(renewed)
        close_all(sock for name, sock in before if name != METRICS)

    def close(self) -> None:
        """Closes the sockets. Idempotent."""
        close_all(sock for _, sock in self.sockets)


def bind(host: str, port: int, field: str, *, shared: bool = False) -> list[socket.socket]:
    """Binds sockets to every address of a host, and listens, unless they are shared.

    Args:
        host: an address or name; empty for every address.
        port: the port; with 0 all sockets share one free port.
        field: the setting that names the port, for the error.
        shared: whether further sockets are to be bound to the same port. Whoever is to accept then has to begin to
            listen (see ``listen_soon``): connections would come to the socket, and wait, from that moment on.

    Raises:
        InvalidInput: the host is unknown, or the port is taken or not allowed.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise InvalidInput(f"Cannot listen on {host!r}: {error.strerror}", "host") from error
    sockets: list[socket.socket] = []
    alone = len({info[0] for info in found}) == 1
    try:
        for family, kind, number, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, number)
            sockets.append(sock)
            sock.setblocking(False)
            if family == socket.AF_INET6:
                # "::" alone means every address, IPv4 too; beside an IPv4 socket it has to keep to its own.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if alone and host == "::" else 1)
            chosen = port or (sockets[0].getsockname()[1] if len(sockets) > 1 else 0)
            _bind(sock, (address[0], chosen, *address[2:]), shared)
            if not shared:
                sock.listen(BACKLOG)
    except OSError as error:
        close_all(sockets)
        raise cannot_listen(host, port, field, error) from error
    return sockets


def cannot_listen(host: str, port: int, field: str, error: OSError) -> InvalidInput:
    """What to say when an address cannot be listened on."""
    why = {
        errno.EADDRINUSE: "the address is in use by another program",
        errno.EACCES: "ports below 1024 need special rights",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }.get(error.errno or 0, error.strerror)
    return InvalidInput(f"Cannot listen on {host or '*'} port {port}: {why}", field)


def bind_slots(settings: Settings, count: int) -> list[Slot]:
    """Binds the sockets of several workers.

    With port 0 all of them share the port that the first one got. Each has a port of its own for its metrics, if
    the setting names one.

    Args:
        settings: hosts and ports.
        count: how many workers there are.

    Raises:
        InvalidInput: an address cannot be listened on; then nothing is bound.
    """
    ports = [(PLAIN, settings.port, "port")]
    if settings.tls:
        ports.append((SECURE, settings.tls_port, "tls_port"))
    bound: list[list[Bound]] = [[] for _ in range(count)]
    try:
        for name, port, field in ports:
            _check_vacant(settings.host, port, field)
            for sockets in bound:
                made = bind(settings.host, port, field, shared=True)
                port = port or made[0].getsockname()[1]
                sockets += [(name, sock) for sock in made]
        for number, sockets in enumerate(bound):
            sockets += bind_metrics(settings, number)
    except InvalidInput:
        close_all(sock for sockets in bound for _, sock in sockets)
        raise
    return [Slot(number, tuple(sockets)) for number, sockets in enumerate(bound)]


def bind_metrics(settings: Settings, number: int) -> list[Bound]:
    """Binds the port that shows the metrics of one worker alone, if the setting names one.

    Args:
        settings: host and port of the first worker.
        number: which worker.

    Raises:
        InvalidInput: there is no such port, or it cannot be listened on.
    """
    if settings.metrics_port is None:
        return []
    port = settings.metrics_port + number
    if port > 65535:
        raise InvalidInput("metrics_port leaves no room for a port of every worker's own", "metrics_port")
    return [(METRICS, sock) for sock in bind(settings.host, port, "metrics_port")]


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Closes sockets."""
    for sock in sockets:
        sock.close()


def listen_soon(sock: socket.socket) -> None:
    """Is called by whoever is about to listen on a shared socket that was bound here.

    Connections take this on from the socket that they come to; what is left of one that has ended would keep the
    address from the next process.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _bind(sock: socket.socket, address: tuple[Any, ...], shared: bool) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    if shared:
        # As long as nobody listens, this alone tells others that the address is taken.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _renewed(sock: socket.socket) -> socket.socket:
    """Another socket bound to the address of a shared one, on which nobody listens."""
    new = socket.socket(sock.family, sock.type, sock.proto)
    try:
        new.setblocking(False)
        if sock.family == socket.AF_INET6:
            alone = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, alone)
        _bind(new, sock.getsockname(), shared=True)
    except OSError:
        new.close()
        raise
    return new


def _check_vacant(host: str, port: int, field: str) -> None:
    """Refuses a port on which anyone listens: sockets that share it would join them in silence."""
    if port == 0:
        return
    close_all(bind(host, port, field))
