"""Messages, conversations and inboxes in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TypeVar

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import sqlite

from offhook.domain.accounts import User
from offhook.domain.messages import Conversation, Message, Thread
from offhook.storage.statements import Core, Hold, Row, Rows, Statement, UniqueViolation, adding
from offhook.storage.tables import conversations, inboxes, messages, users

T = TypeVar("T")

_FIELDS = (
    "application_id",
    "conversation_id",
    "sender_id",
    "sender",
    "recipient_id",
    "recipient",
    "text",
    "sent_at",
)
_COLUMNS = (messages.c.id, *(messages.c[name] for name in _FIELDS))

_user = bindparam("user_id", type_=messages.c.id.type)
_conversation = messages.c.conversation_id == bindparam("conversation_id")
_message = messages.c.id == bindparam("id")
_sent = messages.c.sender_id == _user
_received = messages.c.recipient_id == _user
_shown_to_sender = messages.c.hidden_from_sender.is_(false())
_shown_to_recipient = messages.c.hidden_from_recipient.is_(false())
_visible = or_(and_(_sent, _shown_to_sender), and_(_received, _shown_to_recipient))

# --- sending

_FIND = Statement(
    select(conversations.c.id).where(
        conversations.c.one_id == bindparam("one_id"), conversations.c.other_id == bindparam("other_id")
    )
)
_BEGIN = adding(
    conversations,
    {column.name: bindparam(column.name, type_=column.type) for column in conversations.c if column.name != "id"},
    conversations.c.id,
)
_ADD = Statement(
    insert(messages)
    .values(
        {
            **{name: bindparam(name, type_=messages.c[name].type) for name in _FIELDS},
            "hidden_from_sender": false(),
            "hidden_from_recipient": false(),
        }
    )
    .returning(messages.c.id)
)

# --- delivery

_delivered = select(inboxes.c.delivered).where(inboxes.c.user_id == _user).scalar_subquery()
_WAITING = Statement(
    select(messages.c.id)
    .where(_received, _shown_to_recipient, messages.c.id > func.coalesce(_delivered, 0))
    .order_by(messages.c.id.desc())
    .limit(1)
)
_UNDELIVERED = Statement(
    select(*_COLUMNS)
    .where(
        _received,
        _shown_to_recipient,
        messages.c.id > func.coalesce(_delivered, 0),
        messages.c.id > bindparam("after"),
        messages.c.id <= bindparam("until"),
    )
    .order_by(messages.c.id)
    .limit(bindparam("limit"))
)
_marked = select(users.c.id, bindparam("last", type_=inboxes.c.delivered.type)).where(users.c.id == _user)


def _mark() -> Core:
    mark = sqlite.insert(inboxes).from_select(["user_id", "delivered"], _marked)
    return mark.on_conflict_do_update(
        index_elements=[inboxes.c.user_id],
        set_={"delivered": mark.excluded.delivered},
        where=inboxes.c.delivered < mark.excluded.delivered,
    )


def _mark_on_postgresql() -> Core:
    from sqlalchemy.dialects import postgresql

    mark = postgresql.insert(inboxes).from_select(["user_id", "delivered"], _marked)
    return mark.on_conflict_do_update(
        index_elements=[inboxes.c.user_id],
        set_={"delivered": mark.excluded.delivered},
        where=inboxes.c.delivered < mark.excluded.delivered,
    )


_MARK = Statement(_mark(), postgresql=_mark_on_postgresql)

# --- conversations as their users see them

_peer = case((conversations.c.one_id == _user, conversations.c.other), else_=conversations.c.one)
_own = or_(conversations.c.one_id == _user, conversations.c.other_id == _user)
_last = messages.alias("last")


def _newest(column: ColumnElement[T], *conditions: ColumnElement[bool]) -> ScalarSelect[T]:
    """A column of the newest message of a conversation for which the conditions hold."""
    newest = select(column).where(messages.c.conversation_id == conversations.c.id, *conditions)
    return newest.order_by(messages.c.id.desc()).limit(1).correlate(conversations).scalar_subquery()


def _threads(*, empty: bool) -> Select[tuple[object, ...]]:
    """Threads, with or without those in which nothing is left to be seen."""
    found: Select[tuple[object, ...]] = select(
        conversations.c.id,
        _peer,
        _newest(messages.c.sent_at, _received, _shown_to_recipient),
        *(_last.c[column.name] for column in _COLUMNS),
    )
    return found.join_from(conversations, _last, _last.c.id == _newest(messages.c.id, _visible), isouter=empty)


_THREADS = Statement(_threads(empty=False).where(_own).order_by(_last.c.id.desc()).limit(bindparam("limit")))
_THREAD = Statement(_threads(empty=True).where(_own, conversations.c.id == bindparam("id")))
_THREAD_WITH = Statement(
    # A later user of the same name has a higher id, and a later conversation.
    _threads(empty=True)
    .where(
        or_(
            and_(conversations.c.one_id == _user, conversations.c.other == bindparam("name")),
            and_(conversations.c.other_id == _user, conversations.c.one == bindparam("name")),
        )
    )
    .order_by(conversations.c.id.desc())
    .limit(1)
)
_LIST = Statement(
    select(*_COLUMNS).where(_conversation, _visible).order_by(messages.c.id.desc()).limit(bindparam("limit"))
)
_GET = Statement(select(*_COLUMNS).where(_message, _visible))

# --- deleting

# Of its two users, who may both be deleting, one at a time.
_HOLD = Statement(select(conversations.c.id).where(conversations.c.id == bindparam("conversation_id")), hold=Hold.ROWS)
_nobody_else = or_(
    messages.c.sender_id == messages.c.recipient_id,
    case((_sent, messages.c.hidden_from_recipient), else_=messages.c.hidden_from_sender),
    # Who is gone reads nothing any more.
    ~exists().where(users.c.id == case((_sent, messages.c.recipient_id), else_=messages.c.sender_id)),
)


@cache
def _dropping(one: bool) -> Statement:
    """Deletes what only this user could still see: one message, or all of the conversation."""
    return Statement(delete(messages).where(*([_message] if one else []), _conversation, _visible, _nobody_else))


@cache
def _hiding(one: bool) -> Statement:
    """Hides the rest from this user."""
    return Statement(
        update(messages)
        .where(*([_message] if one else []), _conversation, _visible)
        .values(
            hidden_from_sender=case((_sent, true()), else_=messages.c.hidden_from_sender),
            hidden_from_recipient=case((_received, true()), else_=messages.c.hidden_from_recipient),
        )
    )


class SQLMessages:
    """``ports.Messages`` on a connection.

    Args:
        rows: executes its statements.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def conversation(self, one: User, other: User) -> Conversation:
        if one.id > other.id:
            one, other = other, one
        row = self._rows.first(_FIND, one_id=one.id, other_id=other.id)
        if row is None:
            try:
                row = self._rows.first(
                    _BEGIN,
                    application_id=one.application_id,
                    one_id=one.id,
                    other_id=other.id,
                    one=one.name,
                    other=other.name,
                )
            except UniqueViolation:  # Another node began it just now.
                row = self._rows.first(_FIND, one_id=one.id, other_id=other.id)
            assert row is not None
        return Conversation(row[0], one.application_id, one.id, other.id)

    def add(self, message: Message) -> Message:
        row = self._rows.first(_ADD, **{name: getattr(message, name) for name in _FIELDS})
        assert row is not None
        return replace(message, id=row[0])

    def waiting(self, user_id: int) -> int:
        row = self._rows.first(_WAITING, user_id=user_id)
        return 0 if row is None else int(row[0])

    def undelivered(self, user_id: int, after: int, until: int, limit: int) -> Sequence[Message]:
        rows = self._rows.all(_UNDELIVERED, user_id=user_id, after=after, until=until, limit=limit)
        return [Message(*row) for row in rows]

    def mark_delivered(self, marks: Sequence[tuple[int, int]]) -> None:
        # In an order that is everybody's, so that nobody waits for somebody who waits for them.
        self._rows.many(_MARK, [{"user_id": user_id, "last": last} for user_id, last in sorted(marks)])

    def threads(self, user_id: int, limit: int) -> Sequence[Thread]:
        return [_thread(row) for row in self._rows.all(_THREADS, user_id=user_id, limit=limit)]

    def thread(self, user_id: int, conversation_id: int) -> Thread | None:
        row = self._rows.first(_THREAD, user_id=user_id, id=conversation_id)
        return None if row is None else _thread(row)

    def thread_with(self, user_id: int, name: str) -> Thread | None:
        row = self._rows.first(_THREAD_WITH, user_id=user_id, name=name)
        return None if row is None else _thread(row)

    def list(self, user_id: int, conversation_id: int, limit: int) -> Sequence[Message]:
        rows = self._rows.all(_LIST, user_id=user_id, conversation_id=conversation_id, limit=limit)
        return [Message(*row) for row in reversed(rows)]

    def get(self, user_id: int, message_id: int) -> Message | None:
        row = self._rows.first(_GET, user_id=user_id, id=message_id)
        return None if row is None else Message(*row)

    def hide(self, user_id: int, conversation_id: int, message_id: int | None) -> int:
        one = message_id is not None
        values: dict[str, object] = {"user_id": user_id, "conversation_id": conversation_id}
        if one:
            values["id"] = message_id
        self._rows.first(_HOLD, conversation_id=conversation_id)
        return self._rows.run(_dropping(one), **values) + self._rows.run(_hiding(one), **values)


def _thread(row: Row) -> Thread:
    conversation_id, peer, received_at, *last = row
    return Thread(conversation_id, peer, None if last[0] is None else Message(*last), received_at)
