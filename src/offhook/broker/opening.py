"""Which broker a setting names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from offhook.broker.journal import Journal
from offhook.broker.memory import MemoryBroker
from offhook.ports import Broker, Publication

MEMORY = "memory://"


class NodeBroker(Broker, Protocol):
    """A broker as the composition root sees it."""

    def deliver(self, publications: Sequence[Publication]) -> None:
        """Is what the store calls after a commit."""

    @property
    def connected(self) -> bool:
        """Whether events and commands of other nodes come without delay."""

    @property
    def measures(self) -> Mapping[str, int]:
        """What it has counted, by name."""


def check_broker_url(url: str) -> None:
    """Refuses a URL that names no broker.

    Raises:
        InvalidInput: it cannot be used.
    """
    if url != MEMORY:
        # Of the client library, only those who use it pay for the import.
        from offhook.broker.mesh import parse_broker_url

        parse_broker_url(url)


def open_broker(url: str, prefix: str, journal: Journal) -> NodeBroker:
    """The broker that a URL names.

    Args:
        url: ``memory://``, or as ``mesh.parse_broker_url`` understands it.
        prefix: begins the names of channels, see ``RedisBroker``.
        journal: the durable history and the leases.

    Raises:
        InvalidInput: the URL cannot be used.
    """
    if url == MEMORY:
        return MemoryBroker(journal)
    from offhook.broker.mesh import parse_broker_url
    from offhook.broker.redis import RedisBroker

    return RedisBroker(journal, parse_broker_url(url), prefix)
