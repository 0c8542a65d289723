"""The broker on Redis under contract, beside the PostgreSQL store."""

from __future__ import annotations

from tests.contract.postgres import PostgresEngine
from tests.redis_servers import REDIS

from offhook.broker.journal import Journal
from offhook.broker.mesh import parse_broker_url
from offhook.broker.redis import RedisBroker


class RedisEngine(PostgresEngine):
    """The PostgreSQL store and the broker on the machine's Redis, with channels that are named after the database."""

    def broker(self, journal: Journal) -> RedisBroker:
        return RedisBroker(journal, parse_broker_url(REDIS))
