"""Applications in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, Table, bindparam, case, delete, insert, select, update

from offhook.domain.accounts import Application
from offhook.domain.events import application_topic, user_topic
from offhook.errors import Conflict, NotFound
from offhook.storage.journal import Topics
from offhook.storage.statements import Hold, Row, Rows, Statement, UniqueViolation
from offhook.storage.tables import applications, conversations, sessions, users

_FIELDS = (
    "name",
    "domain",
    "api_key",
    "client_id",
    "client_secret_hash",
    "created_at",
    "guests",
    "enabled",
    "sessions",
    "tokens",
    "webhook",
)
_COLUMNS = (applications.c.id, *(applications.c[name] for name in _FIELDS))
_VALUES = {name: bindparam(name, type_=applications.c[name].type) for name in _FIELDS}
_domain_key = bindparam("domain_key", type_=applications.c.domain_key.type)
_UNIQUE = {
    "name": ("name", "name"),
    "domain": ("domain", "domain"),
    "domain_key": ("domain", "domain"),
    "api_key": ("api_key", "API key"),
}
"""Unique column → the field that it is made of, and what to call that."""

_ADD = Statement(
    insert(applications).values(_VALUES | {"domain_key": _domain_key}).returning(applications.c.id), may_violate=True
)
_GET = Statement(select(*_COLUMNS).where(applications.c.id == bindparam("id")))
# Who changes an application looks for it by name; by its id it is looked up all the time.
_BY_NAME = Statement(select(*_COLUMNS).where(applications.c.name == bindparam("name")), hold=Hold.ROWS)
_BY_API_KEY = Statement(select(*_COLUMNS).where(applications.c.api_key == bindparam("api_key")))
_BY_DOMAIN = Statement(select(*_COLUMNS).where(applications.c.domain_key == bindparam("domain_key")))
_LIST = Statement(select(*_COLUMNS).order_by(applications.c.name))
# A domain that stays keeps its key, so that an application that has none can be saved as it is.
_kept_key = case((applications.c.domain == _VALUES["domain"], applications.c.domain_key), else_=_domain_key)
_SAVE = Statement(
    update(applications).where(applications.c.id == bindparam("key")).values(_VALUES | {"domain_key": _kept_key}),
    may_violate=True,
)
_DELETE = Statement(delete(applications).where(applications.c.id == bindparam("id")))
_USER_IDS = Statement(select(users.c.id).where(users.c.application_id == bindparam("id")))


def _some(table: Table) -> Select[Any]:
    """Ids of some rows of an application's, whichever are found first."""
    return select(table.c.id).where(table.c.application_id == bindparam("id")).limit(bindparam("limit"))


_CLEAR_CONVERSATIONS = Statement(delete(conversations).where(conversations.c.id.in_(_some(conversations))))
_CLEAR_SESSIONS = Statement(delete(sessions).where(sessions.c.id.in_(_some(sessions))))
_CLEAR_USERS = Statement(delete(users).where(users.c.id.in_(_some(users))).returning(users.c.id))


class SQLApplications:
    """``ports.Applications`` on a connection.

    Args:
        rows: executes its statements.
        topics: the journal, which forgets the topics of a deleted application.
    """

    __slots__ = ("_rows", "_topics")

    def __init__(self, rows: Rows, topics: Topics) -> None:
        self._rows = rows
        self._topics = topics

    def add(self, application: Application) -> Application:
        try:
            row = self._rows.first(_ADD, **_values(application))
        except UniqueViolation as violation:
            raise _taken(application, violation) from violation
        assert row is not None
        return replace(application, id=row[0])

    def get(self, application_id: int) -> Application | None:
        return _application(self._rows.first(_GET, id=application_id))

    def by_name(self, name: str) -> Application | None:
        return _application(self._rows.first(_BY_NAME, name=name))

    def by_api_key(self, api_key: str) -> Application | None:
        return _application(self._rows.first(_BY_API_KEY, api_key=api_key))

    def by_domain(self, domain: str) -> Application | None:
        return _application(self._rows.first(_BY_DOMAIN, domain_key=domain.casefold()))

    def list(self) -> Sequence[Application]:
        return [Application(*row) for row in self._rows.all(_LIST)]

    def save(self, application: Application) -> None:
        try:
            found = self._rows.run(_SAVE, key=application.id, **_values(application))
        except UniqueViolation as violation:
            raise _taken(application, violation) from violation
        if not found:
            raise NotFound("The application does not exist")

    def clear(self, application_id: int, limit: int) -> bool:
        for some in (_CLEAR_CONVERSATIONS, _CLEAR_SESSIONS):
            if self._rows.run(some, id=application_id, limit=limit) == limit:
                return True
        gone = [user_topic(row[0]) for row in self._rows.all(_CLEAR_USERS, id=application_id, limit=limit)]
        self._topics.drop(gone)
        return len(gone) == limit

    def delete(self, application_id: int) -> None:
        gone = [user_topic(row[0]) for row in self._rows.all(_USER_IDS, id=application_id)]
        self._rows.run(_DELETE, id=application_id)
        self._topics.drop([application_topic(application_id), *gone])


def _values(application: Application) -> dict[str, object]:
    values = {name: getattr(application, name) for name in _FIELDS}
    return values | {"domain_key": application.domain.casefold()}


def _application(row: Row | None) -> Application | None:
    return None if row is None else Application(*row)


def _taken(application: Application, violation: UniqueViolation) -> Conflict:
    for column, (field, words) in _UNIQUE.items():
        if f"applications.{column}" in violation.columns:
            return Conflict(f"The {words} {getattr(application, field)!r} is taken")
    return Conflict("The application exists already")
