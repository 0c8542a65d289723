"""Subscriptions in the database."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlalchemy import bindparam, func, insert, select, update

from offhook.domain.subscriptions import Outline, Subscription
from offhook.errors import NotFound
from offhook.storage.statements import Hold, Rows, Statement
from offhook.storage.tables import LIVE, sessions, subscriptions

_COLUMNS = tuple(subscriptions.c)
_VALUES = {column.name: bindparam(column.name, type_=column.type) for column in _COLUMNS}
_CHANGING = {name: value for name, value in _VALUES.items() if name != "session_id"}

_ADD = Statement(insert(subscriptions).values(_VALUES))
_get = select(*_COLUMNS).where(subscriptions.c.session_id == bindparam("session_id"))
_GET = Statement(_get, hold=Hold.SUBSCRIPTION)
_SAVE = Statement(update(subscriptions).where(subscriptions.c.session_id == bindparam("key")).values(_CHANGING))
_LIVE_OF = Statement(
    select(*(subscriptions.c[field.name] for field in dataclasses.fields(Outline)))
    .join(sessions, sessions.c.id == subscriptions.c.session_id)
    .where(sessions.c.user_id == bindparam("user_id"), LIVE)
    .order_by(sessions.c.id)
)
_NOBODYS = (
    # Nobody's sessions are all of subscriptions.
    select(func.count())
    .select_from(sessions)
    .where(sessions.c.user_id == 0, LIVE, sessions.c.application_id == bindparam("application_id"))
)
_ANONYMOUS = Statement(_NOBODYS)
_ANONYMOUS_AT = Statement(_NOBODYS.where(sessions.c.address == bindparam("address")))


class SQLSubscriptions:
    """``ports.Subscriptions`` on a connection.

    Args:
        rows: executes its statements.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def add(self, subscription: Subscription) -> None:
        self._rows.run(_ADD, session_id=subscription.session_id, **_values(subscription))

    def get(self, session_id: int) -> Subscription | None:
        row = self._rows.first(_GET, session_id=session_id)
        return None if row is None else Subscription(*row)

    def save(self, subscription: Subscription) -> None:
        if not self._rows.run(_SAVE, key=subscription.session_id, **_values(subscription)):
            raise NotFound("The subscription does not exist")

    def live_of(self, user_id: int) -> Sequence[Outline]:
        return [Outline(*row) for row in self._rows.all(_LIVE_OF, user_id=user_id)]

    def anonymous(self, application_id: int, address: str | None = None) -> int:
        if address is None:
            row = self._rows.first(_ANONYMOUS, application_id=application_id)
        else:
            row = self._rows.first(_ANONYMOUS_AT, application_id=application_id, address=address)
        assert row is not None
        return int(row[0])


def _values(subscription: Subscription) -> dict[str, object]:
    return {
        "product": subscription.product,
        "services": subscription.services,
        "lifetime": subscription.lifetime,
        "localization": subscription.localization,
        "correlator": subscription.correlator,
        "login": subscription.login,
        "device": subscription.device,
        "watched": subscription.watched,
        "owed": subscription.owed,
        "backlog": subscription.backlog,
        "im_since": subscription.im_since,
        "watched_since": subscription.watched_since,
        "version": subscription.version,
    }
