"""Messages between two users: stored, then delivered to every client of the recipient, now or later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from offhook.domain.accounts import User
from offhook.domain.events import MessageSent, user_topic
from offhook.domain.messages import Message, Thread, check_message
from offhook.domain.subscriptions import user_of
from offhook.errors import AccessDenied, NotFound
from offhook.ports import Clock, Store, Transaction

MAX_THREADS = 500
MAX_LISTED = 200
"""Threads, or messages, that one request gets at most."""
MAX_CHARACTERS = 1_000_000
"""Characters of texts that one request gets at most; the newest text is always among them."""


class MessageService:
    """Use cases around messages between two users of one application."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def send(self, sender: User, to: str, text: str, field: str = "message") -> Message:
        """Sends a message. When this returns, it is stored, and will be delivered.

        Args:
            sender: who sends it.
            to: the recipient's address: a username, with or without ``sip:``.
            text: what it says.
            field: what the caller calls the text, for errors.

        Raises:
            InvalidInput: the text is empty, too long or no text.
            NotFound: there is no such recipient.
            AccessDenied: one of the two blocks the other.
            Unavailable: the store does not take it.
        """
        check_message(text, field)
        name = user_of(to)

        def work(tx: Transaction) -> Message:
            recipient = tx.users.by_name(sender.application_id, name)
            if recipient is None:
                raise NotFound("There is no such user")
            if recipient.id in tx.users.blocked_either_way(sender.id):
                raise AccessDenied("A block stands between you and this user")
            conversation = tx.messages.conversation(sender, recipient)
            message = tx.messages.add(
                Message(
                    id=0,
                    application_id=sender.application_id,
                    conversation_id=conversation.id,
                    sender_id=sender.id,
                    sender=sender.name,
                    recipient_id=recipient.id,
                    recipient=recipient.name,
                    text=text,
                    sent_at=self._clock.now(),
                )
            )
            tx.publish(user_topic(recipient.id), MessageSent(message))
            return message

        return await self._store.transact(work)

    async def undelivered(self, user_id: int, after: int, until: int, limit: int) -> Sequence[Message]:
        """Messages to a user that none of their clients is known to have got; see ``ports.Messages``."""
        return await self._store.query(lambda tx: tx.messages.undelivered(user_id, after, until, limit))

    async def threads(self, user: User) -> Sequence[Thread]:
        """The user's conversations, the latest first."""
        found = await self._store.query(lambda tx: tx.messages.threads(user.id, MAX_THREADS))
        return found[: _fitting("" if thread.last is None else thread.last.text for thread in found)]

    async def thread(self, user: User, key: int | str) -> Thread:
        """One of the user's conversations, by id or by the other user's name. Raises NotFound."""
        return await self._store.query(lambda tx: _thread(tx, user, key))

    async def list(self, user: User, key: int | str, limit: int) -> Sequence[Message]:
        """The newest messages of a conversation, oldest first. Raises NotFound."""

        def work(tx: Transaction) -> Sequence[Message]:
            found = tx.messages.list(user.id, _thread(tx, user, key).id, min(limit, MAX_LISTED))
            return found[len(found) - _fitting(message.text for message in reversed(found)) :]

        return await self._store.query(work)

    async def get(self, user: User, key: int | str, message_id: int) -> Message:
        """One message of a conversation. Raises NotFound."""

        def work(tx: Transaction) -> Message:
            thread = _thread(tx, user, key)
            message = tx.messages.get(user.id, message_id)
            if message is None or message.conversation_id != thread.id:
                raise NotFound("There is no such message")
            return message

        return await self._store.query(work)

    async def delete(self, user: User, key: int | str, message_id: int | None) -> None:
        """Deletes a message, or all of a conversation, for this user; the other keeps it.

        Raises:
            NotFound: there is no such conversation or message.
        """

        def work(tx: Transaction) -> None:
            hidden = tx.messages.hide(user.id, _thread(tx, user, key).id, message_id)
            if message_id is not None and not hidden:
                raise NotFound("There is no such message")

        await self._store.transact(work)


def _fitting(texts: Iterable[str]) -> int:
    """How many of the first texts fit into one answer; the very first always does."""
    fitting, characters = 0, 0
    for text in texts:
        characters += len(text)
        if fitting and characters > MAX_CHARACTERS:
            break
        fitting += 1
    return fitting


def _thread(tx: Transaction, user: User, key: int | str) -> Thread:
    thread = tx.messages.thread(user.id, key) if isinstance(key, int) else tx.messages.thread_with(user.id, key)
    if thread is None:
        raise NotFound("There is no such conversation")
    return thread
