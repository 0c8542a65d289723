"""What a unit of work sees of the database."""

from __future__ import annotations

from datetime import datetime

from offhook.domain.events import Event, Origin, Position, Topic
from offhook.storage.applications import SQLApplications
from offhook.storage.history import History, Leases
from offhook.storage.journal import Topics
from offhook.storage.messages import SQLMessages
from offhook.storage.sessions import SQLSessions
from offhook.storage.statements import Rows
from offhook.storage.subscriptions import SQLSubscriptions
from offhook.storage.tokens import UsedTokens
from offhook.storage.users import SQLUsers


class SQLTransaction:
    """``ports.Transaction`` on a connection, and what the in-process broker keeps in the same database.

    Args:
        rows: executes all statements.
        topics: the journal: its writer, or in a query its history.
        epoch: names the journal's history.
    """

    __slots__ = (
        "_tokens",
        "_topics",
        "applications",
        "history",
        "leases",
        "messages",
        "sessions",
        "subscriptions",
        "users",
    )

    def __init__(self, rows: Rows, topics: Topics, epoch: str) -> None:
        self._topics = topics
        self.applications = SQLApplications(rows, topics)
        self.users = SQLUsers(rows, topics)
        self.sessions = SQLSessions(rows)
        self.subscriptions = SQLSubscriptions(rows)
        self.messages = SQLMessages(rows)
        self._tokens = UsedTokens(rows)
        self.history = History(rows, epoch)
        self.leases = Leases(rows)

    def use_token(self, digest: str, until: datetime) -> bool:
        return self._tokens.use(digest, until)

    def token_used(self, digest: str) -> bool:
        return self._tokens.used(digest)

    def forget_tokens(self, before: datetime, limit: int) -> int:
        return self._tokens.forget(before, limit)

    def publish(self, topic: Topic, event: Event, origin: Origin | None = None) -> None:
        self._topics.publish(topic, event, origin)

    def head(self, topic: Topic) -> Position:
        return self._topics.head(topic)
