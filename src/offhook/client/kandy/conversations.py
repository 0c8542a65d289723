"""What users write to each other (Kandy protocol notes, 6)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from offhook.client.errors import ConnectionFailed, TimedOut
from offhook.client.kandy.core import Core
from offhook.client.kandy.errors import (
    FETCH_CONVERSATIONS_FAILED,
    FETCH_MESSAGES_FAILED,
    SEND_FAILED,
    KandyError,
)
from offhook.client.kandy.events import ConversationsChange, ConversationsNew, MessagesChange, MessagesError
from offhook.client.kandy.rest import Query, Reply, words
from offhook.client.kandy.values import Attachment, Message
from offhook.protocols.kandy import bodies, incoming, replies
from offhook.protocols.kandy.incoming import Notification
from offhook.protocols.kandy.paths import Resource, uc_path, user_path
from offhook.protocols.kandy.wrappers import UC

WRAPPER = "imResponse"
KEPT = 1000
"""Messages of one conversation that a client remembers; it forgets those first that it learnt of first."""


class Conversation:
    """What two users write to each other. Made by :meth:`ConversationService.create`, or by a message that comes.

    It remembers the latest KEPT messages; with UC the server has the older ones.

    Attributes:
        destination: the other user.
        id: UC: given by the server, once :meth:`ConversationService.fetch` has told it; else None.
        last_message: UC: the text of the last message, as fetched; else None.
        last_received: UC: when the other user wrote last, as fetched; else None.
    """

    def __init__(self, service: ConversationService, destination: str) -> None:
        self._service = service
        self._messages: dict[str, Message] = {}
        self._counted = 0
        self.destination = destination
        self.id: str | None = None
        self.last_message: str | None = None
        self.last_received: datetime | None = None

    def __repr__(self) -> str:
        return f"Conversation({self.destination!r}, messages={len(self._messages)})"

    @property
    def messages(self) -> list[Message]:
        """What was sent and heard by this client, and fetched; the oldest first."""
        return sorted(self._messages.values(), key=lambda message: message.timestamp)

    async def send(self, text: str) -> Message:
        """Sends a message; ``messages:change`` follows.

        Raises:
            KandyError: ``messaging:5``, or with UC the server's number, if it was not sent; told by
                ``messages:error`` too. Without an answer nobody knows whether it was.
            ClientClosed: the client was destroyed.
        """
        return await self._service.core.run(self._service.send(self, text))

    async def fetch_messages(self, amount: int = 50) -> list[Message]:
        """UC: fetches messages that the server keeps; ``messages:change`` follows.

        Args:
            amount: at most; the latest.

        Returns:
            Those fetched, the oldest first.

        Raises:
            KandyError: ``messaging:6``, or the server's number; told by ``messages:error`` too.
            ClientClosed: the client was destroyed.
        """
        return await self._service.core.run(self._service.fetch_messages(self, amount))

    async def fetch_attachments(self, message: Message) -> Message:
        """UC: fetches what a message has beside its text; ``messages:change`` follows.

        Args:
            message: one that came, with ``has_attachments``.

        Returns:
            The same, with its attachments.

        Raises:
            KandyError: ``messaging:6``, or the server's number; told by ``messages:error`` too.
            ClientClosed: the client was destroyed.
        """
        return await self._service.core.run(self._service.fetch_attachments(self, message))

    async def delete(self, message: Message | None = None) -> None:
        """UC: deletes the conversation, or one message of it, for this user.

        Args:
            message: which; the whole conversation if left out.

        Raises:
            KandyError: ``messaging:8``, or the server's number; told by ``messages:error`` too.
            ClientClosed: the client was destroyed.
        """
        await self._service.core.run(self._service.delete(self, message))

    @property
    def empty(self) -> bool:
        """Whether there are no messages so far."""
        return not self._messages

    def add(self, message: Message) -> None:
        """Takes a message; one that is there already stays as it is, but for attachments that were not known."""
        name = message.id
        if not name:
            # Of a server that names none; it cannot be found again, but it is there.
            self._counted += 1
            name = f" {self._counted}"
        present = self._messages.setdefault(name, message)
        if message.attachments and not present.attachments:
            self._messages[name] = replace(present, has_attachments=True, attachments=message.attachments)
        while len(self._messages) > KEPT:
            del self._messages[next(iter(self._messages))]

    def drop(self, message: Message | None) -> None:
        """Takes out a message, or all."""
        if message is None:
            self._messages.clear()
        else:
            self._messages.pop(message.id, None)


class ConversationService:
    """``client.conversation``: what users write to each other.

    Every message, sent or heard, is told by one ``messages:change`` that has it. Before that comes
    ``conversations:change`` if it is the first of a conversation.

    Args:
        core: of the client.

    Attributes:
        core: as given.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self._conversations: dict[str, Conversation] = {}

    def create(self, user: str) -> Conversation:
        """The conversation with a user; begun, if there is none yet.

        Args:
            user: a name, with or without ``sip:``.
        """
        name = incoming.bare(user)
        if not name:
            raise ValueError("A conversation is with somebody")
        found = self._conversations.get(name)
        if found is None:
            found = self._conversations[name] = Conversation(self, name)
            if self.core.uc:
                self.core.emit(ConversationsNew(name))
        return found

    async def fetch(self) -> list[Conversation]:
        """UC: fetches the conversations that the server keeps; ``conversations:change`` follows.

        Raises:
            KandyError: ``messaging:8``, or the server's number; told by ``messages:error`` too.
            ClientClosed: the client was destroyed.
        """
        return await self.core.run(self._fetch())

    def get(self, user: str) -> Conversation | None:
        """The conversation with a user, if there is one."""
        return self._conversations.get(incoming.bare(user))

    def get_all(self) -> list[Conversation]:
        """All conversations."""
        return list(self._conversations.values())

    def forget(self) -> None:
        """Another user has signed in."""
        self._conversations.clear()

    # --- heard ------------------------------------------------------------------------------------------------------

    def take_link(self, notification: Notification) -> None:
        """Takes a notification of Link. Raises IncomingError."""
        self._take(notification, incoming.link_message(notification))

    def take_uc(self, notification: Notification) -> None:
        """Takes a notification of UC. Raises IncomingError."""
        if (text := incoming.uc_message(notification)) is not None:
            self._take(notification, text)

    def _take(self, notification: Notification, text: incoming.Text) -> None:
        if not text.sender:
            raise incoming.IncomingError("The message is of nobody")
        name = notification.message_id or notification.event_id
        message = Message(name, text.sender, text.text, _moment(notification.time), True, has_attachments=text.parts)
        conversation = self._conversations.get(text.sender)
        if conversation is None:
            conversation = self._conversations[text.sender] = Conversation(self, text.sender)
        first = conversation.empty
        conversation.add(message)
        if first:
            self.core.emit(ConversationsChange(text.sender))
        self.core.emit(MessagesChange(text.sender, message))

    # --- asked for --------------------------------------------------------------------------------------------------

    async def send(self, conversation: Conversation, text: str) -> Message:
        """Does what :meth:`Conversation.send` does."""
        to = conversation.destination
        try:
            # Now, for it may be forgotten when the answer comes.
            sender = self.core.rest.username
            name = await (self._send_uc(to, text) if self.core.uc else self._send_link(to, text))
        except KandyError as error:
            raise self._told(error, to) from error.__cause__
        message = Message(name, sender, text, datetime.now(UTC), False)
        conversation.add(message)
        self.core.emit(MessagesChange(to, message))
        return message

    async def fetch_messages(self, conversation: Conversation, amount: int) -> list[Message]:
        """Does what :meth:`Conversation.fetch_messages` does."""
        code = FETCH_MESSAGES_FAILED
        try:
            self._need_uc(code)
            user = self.core.rest.username
            if conversation.id is None:
                raise KandyError(code, "The conversation has no id yet: conversation.fetch() finds it")
            query = [("type", "internal"), ("max", str(amount))]
            reply = await self._ask_uc(Resource.UC_THREAD, query, code, conversation.id)
            try:
                rows = replies.rows(reply.value)
            except replies.ReplyError as error:
                raise KandyError(code, str(error), reply.status) from None
        except KandyError as error:
            raise self._told(error, conversation.destination) from error.__cause__
        found = [_message(row, user, conversation.destination) for row in rows]
        for message in found:
            conversation.add(message)
        self.core.emit(MessagesChange(conversation.destination))
        return sorted(found, key=lambda message: message.timestamp)

    async def fetch_attachments(self, conversation: Conversation, message: Message) -> Message:
        """Does what :meth:`Conversation.fetch_attachments` does."""
        code, to = FETCH_MESSAGES_FAILED, conversation.destination
        try:
            self._need_uc(code)
            # The other user is a name of the conversation, whether its id is known or not (6.2).
            query = [("type", "internal"), ("id", message.id)]
            reply = await self._ask_uc(Resource.UC_THREAD, query, code, to)
            try:
                rows = [row for row in replies.rows(reply.value) if str(row.id) in (message.id, "")]
            except replies.ReplyError as error:
                raise KandyError(code, str(error), reply.status) from None
            if not rows:
                raise KandyError(code, "The server does not know the message", reply.status)
        except KandyError as error:
            raise self._told(error, to) from error.__cause__
        found = replace(message, has_attachments=bool(rows[0].attachments), attachments=_attachments(rows[0]))
        conversation.add(found)
        self.core.emit(MessagesChange(to, found))
        return found

    async def delete(self, conversation: Conversation, message: Message | None) -> None:
        """Does what :meth:`Conversation.delete` does."""
        to = conversation.destination
        names = (conversation.id or to,) if message is None else (conversation.id or to, message.id)
        try:
            self._need_uc(FETCH_CONVERSATIONS_FAILED)
            await self._ask_uc(Resource.UC_DELETE, [("type", "internal")], FETCH_CONVERSATIONS_FAILED, *names)
        except KandyError as error:
            raise self._told(error, to) from error.__cause__
        conversation.drop(message)
        if message is not None:
            self.core.emit(MessagesChange(to))
            return
        if self._conversations.get(to) is conversation:
            del self._conversations[to]
        self.core.emit(ConversationsChange(to))

    async def _fetch(self) -> list[Conversation]:
        code = FETCH_CONVERSATIONS_FAILED
        try:
            self._need_uc(code)
            reply = await self._ask_uc(Resource.UC_THREADS, [("type", "im")], code)
            try:
                threads = replies.threads(reply.value)
            except replies.ReplyError as error:
                raise KandyError(code, str(error), reply.status) from None
        except KandyError as error:
            raise self._told(error, None) from error.__cause__
        found = []
        for thread in threads:
            # One of several users has no handle; such are not offered here.
            if not (name := incoming.bare(thread.handle)):
                continue
            conversation = self._conversations.setdefault(name, Conversation(self, name))
            conversation.id = str(thread.thread)
            conversation.last_message = thread.last_message
            if thread.last_received is not None:
                conversation.last_received = _moment(thread.last_received * 1000)
            found.append(conversation)
        self.core.emit(ConversationsChange())
        return found

    async def _send_link(self, to: str, text: str) -> str:
        core = self.core
        try:
            path = user_path(core.rest.username, Resource.INSTANT_MESSAGE, version=core.config.version)
            reply = await core.rest.ask("POST", path, content=bodies.message(to, text))
        except (ConnectionFailed, TimedOut) as error:
            raise KandyError(SEND_FAILED, f"The message was not sent. {words(error)}") from error
        if not reply.ok:
            number = reply.code(WRAPPER)
            told = "" if number is None else f" Code: {number}."
            raise KandyError(SEND_FAILED, f"The message was not sent.{told} {reply.reason(WRAPPER)}", reply.status)
        try:
            return replies.message_id(reply.value)
        except replies.ReplyError as error:
            raise KandyError(SEND_FAILED, f"The message was not sent. {error}", reply.status) from None

    async def _send_uc(self, to: str, text: str) -> str:
        reply = await self._ask_uc(Resource.UC_SEND, [("to", to), ("txt", text)], SEND_FAILED)
        try:
            return replies.sent(reply.value)
        except replies.ReplyError as error:
            raise KandyError(SEND_FAILED, f"The message was not sent. {error}", reply.status) from None

    async def _ask_uc(self, resource: Resource, query: Query, code: str, *names: str) -> Reply:
        core = self.core
        try:
            path = uc_path(resource, *names, version=core.config.uc_version)
            reply = await core.rest.ask("GET", path, query=query)
        except (ConnectionFailed, TimedOut) as error:
            raise KandyError(code, words(error)) from error
        # Refused requests look like good ones, but for what is in them (6.2).
        refused = replies.uc_error(reply.value)
        if refused is not None and reply.ok:
            raise KandyError(str(refused.code), reply.reason(UC), reply.status)
        if not reply.ok:
            raise KandyError(code, reply.reason(UC), reply.status)
        return reply

    def _need_uc(self, code: str) -> None:
        if not self.core.uc:
            raise KandyError(code, "Link's servers keep no conversations: only UC's do")

    def _told(self, error: KandyError, destination: str | None) -> KandyError:
        self.core.emit(MessagesError(error, destination))
        return error


def _message(row: replies.Row, user: str, peer: str) -> Message:
    came = row.direction == 0
    return Message(
        str(row.id),
        peer if came else user,
        row.text,
        _moment(row.when),
        came,
        has_attachments=bool(row.attachments),
        attachments=_attachments(row),
    )


def _attachments(row: replies.Row) -> tuple[Attachment, ...]:
    return tuple(Attachment(part.mime, part.url, part.name) for part in row.attachments)


def _moment(milliseconds: float) -> datetime:
    """A moment of the server's; now if it names none."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds > 0 else datetime.now(UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.now(UTC)
