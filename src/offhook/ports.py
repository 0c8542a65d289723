"""What the services need from the outside: a store, a broker, functions and a clock.

**Store.** Use cases hand a plain function to ``Store.transact``; it runs inside one atomic, durable transaction and may
run more than once (a batch is retried after a failure), so it must have no effect but through its ``Transaction``.
What it publishes is part of the transaction: stored with the change, and delivered only after the commit, in the order
of the commits. When ``transact`` returns, the change survives the death of the process.

**Broker.** Carries what was published to the nodes that listen, keeps a bounded history of each topic with positions
that survive a restart, and holds leases and the way to other nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from offhook.codes import CloseReason, EndReason
from offhook.domain.accounts import Application, User, UserChanges, UserFilter
from offhook.domain.events import Event, Origin, Position, Topic, subject_of
from offhook.domain.messages import Conversation, Message, Thread
from offhook.domain.sessions import Authentication, Session, SessionState, StoryEntry
from offhook.domain.subscriptions import Outline, Subscription
from offhook.domain.values import JsonObject, JsonValue, Page, PageRequest

T = TypeVar("T")


class Clock(Protocol):
    """The time of day."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""


@dataclass(slots=True, eq=False)
class Publication:
    """An event at its place in a topic.

    Attributes:
        topic: where it was published.
        position: its place there.
        event: what happened.
        origin: the request that caused it; known only to the process that handled the request.
        encoded: gateways keep here what they made of the event, so that each form is made once: by the form's name,
            pairs of where it goes and its bytes.
    """

    topic: Topic
    position: Position
    event: Event
    origin: Origin | None = None
    encoded: dict[str, tuple[tuple[str, bytes], ...]] = field(default_factory=dict)
    subject: int = field(init=False)
    """Id of the user whom the event is about."""

    def __post_init__(self) -> None:
        self.subject = subject_of(self.event)


# --- store ---------------------------------------------------------------------------------------------------------


class Applications(Protocol):
    """Applications, inside a transaction."""

    def add(self, application: Application) -> Application:
        """Stores a new application and returns it with its id (the given id is ignored).

        Raises:
            Conflict: the name, domain or API key is taken.
        """

    def get(self, application_id: int) -> Application | None: ...
    def by_name(self, name: str) -> Application | None: ...
    def by_api_key(self, api_key: str) -> Application | None: ...
    def by_domain(self, domain: str) -> Application | None:
        """The application with this domain, whatever its case."""

    def list(self) -> Sequence[Application]: ...
    def save(self, application: Application) -> None:
        """Stores every field of a known application. Raises Conflict as ``add`` does."""

    def clear(self, application_id: int, limit: int) -> bool:
        """Deletes some of what an application has that is about to be deleted: so many sessions, users and
        conversations with their messages at most.

        Returns whether there may be more. What is deleted of a big application at once may take too long.
        """

    def delete(self, application_id: int) -> None:
        """Deletes it with its users, blocks, sessions, messages and topics."""


class Users(Protocol):
    """Users, inside a transaction. Every method but ``get`` names the application; nothing crosses it."""

    def add(self, user: User) -> User:
        """Stores a new user and returns it with its id (the given id is ignored).

        Raises:
            Conflict: the name is taken in the application.
        """

    def get(self, application_id: int, user_id: int) -> User | None: ...
    def by_name(self, application_id: int, name: str) -> User | None: ...
    def list(self, application_id: int, where: UserFilter, page: PageRequest) -> Page[User]:
        """A page of users ordered by display name (whatever its case), then id."""

    def count(self, application_id: int, where: UserFilter) -> int: ...
    def change(self, user: User, changes: UserChanges) -> User:
        """Stores the changes and returns the user with them."""

    def set_online(self, user: User, online: bool) -> User:
        """Stores whether the user is online and returns the user so."""

    def delete(self, application_id: int, user_id: int) -> None:
        """Deletes the user, the blocks from and of them, and their password.

        Past sessions stay, and so do messages, for whoever they were exchanged with.
        """

    def password_hash(self, user_id: int) -> str | None: ...
    def set_password_hash(self, user_id: int, hashed: str | None) -> None: ...

    def block(self, blocker_id: int, blocked_id: int, at: datetime) -> bool:
        """Stores that one user blocks another. Returns whether that is new."""

    def unblock(self, blocker_id: int, blocked_id: int) -> bool:
        """Removes a block. Returns whether there was one."""

    def blocks(self, blocker_id: int, page: PageRequest) -> Page[tuple[User, datetime]]:
        """Whom the user blocks and since when, newest first."""

    def blocked_either_way(self, user_id: int) -> frozenset[int]:
        """Ids of the users whom this user blocks or who block this user."""

    def all_blocks(self) -> Sequence[tuple[int, int]]:
        """Every block on the server: (blocker id, blocked id)."""


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions to list; None does not filter.

    Attributes:
        application_id: of this application.
        user_name: of users with this name.
        live: True for those that have not ended, False for those that have.
        state: in this state.
    """

    application_id: int | None = None
    user_name: str | None = None
    live: bool | None = None
    state: SessionState | None = None


class Sessions(Protocol):
    """Sessions and their stories, inside a transaction."""

    def add(self, session: Session) -> Session:
        """Stores a new session and returns it with its id (the given id is ignored)."""

    def get(self, session_id: int) -> Session | None: ...
    def save(self, session: Session, story: StoryEntry | None = None) -> None:
        """Stores every field of a known session, and one line of its story."""

    def save_positions(self, positions: Sequence[tuple[int, int, Mapping[Topic, int]]]) -> None:
        """Stores the positions of many sessions at once: (session id, generation, topic → offset).

        Only active ones of the same generation take them: the positions of one that was suspended meanwhile were
        saved with that and may be newer, and one of another generation was taken over by a newer connection.
        """

    def story(self, session_id: int) -> Sequence[StoryEntry]:
        """The session's story after its start, oldest first."""

    def live_of(self, user_id: int) -> Sequence[Session]:
        """The user's sessions that have not ended, oldest first."""

    def list(self, where: SessionFilter, page: PageRequest) -> Page[Session]:
        """Sessions, newest first."""

    def due(self, now: datetime, limit: int) -> Sequence[Session]:
        """Sessions whose time has come; the longest overdue first.

        Those are suspended ones whose ``leave_at`` or ``resumable_until`` has come, starting ones whose
        ``resumable_until`` has, and active ones whose ``expires_at`` has.

        Whoever handles a session that is to leave saves it without a ``leave_at``, so that it is due once.
        """

    def active_nodes(self) -> Sequence[str]:
        """The nodes that active sessions name."""

    def active_on(self, node: str, limit: int) -> Sequence[Session]:
        """Active sessions of a node."""

    def active_ids_on(self, node: str) -> Sequence[int]:
        """Ids of all active sessions of a node."""

    def forget(self, before: datetime, limit: int) -> int:
        """Deletes sessions that ended before a time, with their stories. Returns how many."""


class Subscriptions(Protocol):
    """What subscriptions have beyond their sessions, inside a transaction."""

    def add(self, subscription: Subscription) -> None:
        """Stores the subscription of a session that was just added."""

    def get(self, session_id: int) -> Subscription | None: ...
    def save(self, subscription: Subscription) -> None:
        """Stores every field of a known subscription."""

    def live_of(self, user_id: int) -> Sequence[Outline]:
        """Those of a user's sessions that have not ended, oldest first."""

    def anonymous(self, application_id: int, address: str | None = None) -> int:
        """How many live ones an application has that belong to no user (user id 0); of one address, if given."""


class Messages(Protocol):
    """Messages between two users, inside a transaction."""

    def conversation(self, one: User, other: User) -> Conversation:
        """The conversation between two users of one application (who may be the same); made if there is none."""

    def add(self, message: Message) -> Message:
        """Stores a new message and returns it with its id (the given id is ignored). Ids grow."""

    def waiting(self, user_id: int) -> int:
        """Id of the newest message to a user that none of their clients is known to have got; 0 if there is none."""

    def undelivered(self, user_id: int, after: int, until: int, limit: int) -> Sequence[Message]:
        """Messages to a user that no client is known to have got, with ``after < id <= until``, oldest first."""

    def mark_delivered(self, marks: Sequence[tuple[int, int]]) -> None:
        """Stores that clients got messages: (user id, id of the last one). What an earlier mark says stays true.

        Marks of users who are gone are left out.
        """

    def threads(self, user_id: int, limit: int) -> Sequence[Thread]:
        """The user's conversations that have messages the user has not deleted, the latest first."""

    def thread(self, user_id: int, conversation_id: int) -> Thread | None:
        """One of the user's conversations, even if empty by now."""

    def thread_with(self, user_id: int, name: str) -> Thread | None:
        """The user's latest conversation with a user who is, or was, of this name."""

    def list(self, user_id: int, conversation_id: int, limit: int) -> Sequence[Message]:
        """The newest messages of the user's conversation that the user has not deleted, oldest first."""

    def get(self, user_id: int, message_id: int) -> Message | None:
        """A message from or to a user, unless the user deleted it."""

    def hide(self, user_id: int, conversation_id: int, message_id: int | None) -> int:
        """Deletes a message, or all of a conversation, for one of its two users; for good once both did.

        Returns how many messages that made disappear for the user.
        """


class Transaction(Protocol):
    """What a unit of work may do."""

    @property
    def applications(self) -> Applications: ...
    @property
    def users(self) -> Users: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def subscriptions(self) -> Subscriptions: ...
    @property
    def messages(self) -> Messages: ...

    def use_token(self, digest: str, until: datetime) -> bool:
        """Remembers that a token which is good for one use was used. Returns False if it had been already.

        Args:
            digest: names the token, without being it.
            until: when the token is not good any more by itself, and can be forgotten.
        """

    def token_used(self, digest: str) -> bool:
        """Whether such a token is remembered as used."""

    def forget_tokens(self, before: datetime, limit: int) -> int:
        """Forgets used tokens whose time was up before a time. Returns how many."""

    def publish(self, topic: Topic, event: Event, origin: Origin | None = None) -> None:
        """Publishes an event with this transaction; it gets its place in the topic by the time of the commit."""

    def head(self, topic: Topic) -> Position:
        """The place of the topic's last event (offset 0: it has none).

        This transaction's own events are included, but need not be if the topic is an application's: there, what
        other transactions publish meanwhile may come before them.
        """


class Store(Protocol):
    """Durable state."""

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Runs ``work`` in one atomic transaction and returns its result once that is durable.

        Raises:
            OffhookError: as ``work`` does; then nothing was stored.
            Unavailable: the database is away or did not take the change.
        """

    async def query(self, work: Callable[[Transaction], T]) -> T:
        """Runs ``work``, which must only read, on one consistent snapshot. Raises as ``transact`` does."""

    async def close(self) -> None:
        """Waits for the work under way and lets go of the database. Idempotent."""


# --- broker --------------------------------------------------------------------------------------------------------


class HistoryLost(Exception):
    """The history between a position and now is not all there (another epoch, or too long ago): start over."""


@dataclass(frozen=True, slots=True)
class EndSession:
    """Command to the node that holds a session's connection: the session has ended in the store, tell its client.

    Attributes:
        session_id: the session.
        reason: why it ended.
        text: an operator's words for the client, or empty.
    """

    session_id: int
    reason: EndReason
    text: str = ""


@dataclass(frozen=True, slots=True)
class FenceSession:
    """Command: a newer connection took the session over; drop every connection older than ``generation``."""

    session_id: int
    generation: int


@dataclass(frozen=True, slots=True)
class ApplicationChanged:
    """Command to every node: forget what you remember of this application.

    Attributes:
        application_id: the application.
        closed: whether it accepts no sessions now.
    """

    application_id: int
    closed: bool


@dataclass(frozen=True, slots=True)
class BlocksChanged:
    """Command to every node: between these users and those ids there is a block now, and with no one else.

    Attributes:
        blocks: (user id, ids of the users whom that user blocks or who block that user).
    """

    blocks: tuple[tuple[int, frozenset[int]], ...]


@dataclass(frozen=True, slots=True)
class SubscriptionChanged:
    """Command to the node that holds a session's connection: this is its subscription now."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Question:
    """Command to one node: answer this.

    Attributes:
        node: who asks, and is to be sent the ``Answer``.
        number: of the question, unlike that of any other open question of this node.
        body: what is asked, in words of whoever asks.
    """

    node: str
    number: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Command to the node that asked.

    Attributes:
        number: of its question.
        body: what was found, or None: the asked node does not have what the question is about.
    """

    number: int
    body: bytes | None


Command = EndSession | FenceSession | ApplicationChanged | BlocksChanged | SubscriptionChanged | Question | Answer

EVERY_NODE = "*"


def _nobody(*_: object) -> None:
    """Hears what nobody else does."""


@dataclass(frozen=True, slots=True)
class Handlers:
    """Who hears what a broker has to say, in the event loop. By default nobody does.

    Attributes:
        publication: takes every event of the topics that are subscribed to: each once, in each topic's order.
        command: takes the commands to this node.
        resync: is called when commands to this node may have been lost: the store knows what they said.
        gap: is told of a topic of which events were lost for good before they were handed out here.
        late: takes an event of this node's own whose origin became known after it was handed out without, and what was
            handed out of its topic since.
    """

    publication: Callable[[Publication], object] = _nobody
    command: Callable[[Command], object] = _nobody
    resync: Callable[[], object] = _nobody
    gap: Callable[[Topic], object] = _nobody
    late: Callable[[Publication, Sequence[Publication]], object] = _nobody


class Broker(Protocol):
    """Topics, leases and commands among the nodes of one system."""

    def start(self, node: str, handlers: Handlers) -> None:
        """Names this node, unlike any other, and says who is to hear. Called once, before anything else."""

    @property
    def epoch(self) -> str:
        """Names the histories as they are now."""

    @property
    def connected(self) -> bool:
        """Whether all that other nodes say is heard at once."""

    async def subscribe(self, topic: Topic) -> None:
        """This node hears the topic from now on. Subscribing twice changes nothing."""

    async def unsubscribe(self, topic: Topic) -> None:
        """This node no longer hears the topic."""

    async def position(self, topic: Topic) -> Position:
        """The place of the topic's last event (offset 0: it has none)."""

    async def history(self, topic: Topic, after: Position, limit: int) -> Sequence[Publication]:
        """The events after a position, oldest first, at most ``limit`` of them.

        Raises:
            HistoryLost: some of them are gone, the epoch differs, or ``after`` lies ahead of the topic.
        """

    async def acquire_lease(self, name: str, holder: str, ttl: float) -> bool:
        """Takes or renews a lease for ``ttl`` seconds. Returns False, changing nothing, while another holds it."""

    async def release_lease(self, name: str, holder: str) -> None:
        """Gives a lease back, if ``holder`` has it."""

    async def lease_holder(self, name: str) -> str | None:
        """Who holds the lease now, or None. Leases survive a restart of the process."""

    async def send(self, node: str, command: Command) -> bool:
        """Sends a command to a node (or EVERY_NODE). Returns whether someone is there to take it."""

    async def close(self) -> None:
        """Ends all of it. Idempotent."""


class Blobs(Protocol):
    """Files by name. What was stored under a name never changes."""

    async def put(self, name: str, data: bytes) -> None:
        """Stores a file durably; storing it again changes nothing.

        Raises:
            InvalidInput: the name is not of the form that files have.
            Unavailable: there is no room, or the folder or the database is away.
        """

    async def get(self, name: str) -> bytes | None:
        """The file's content, or None if there is none of this name. Raises Unavailable as ``put`` does."""

    async def delete(self, name: str) -> None:
        """Deletes the file, if there is one of this name. Raises as ``put`` does."""


# --- functions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """An attempt to start a session, as an authentication function sees it.

    Attributes:
        application: the application's name.
        username: who the client says it is.
        auth_params: what the client sent to prove it; empty if nothing.
        protocol: ``chatkitty`` or ``kandy``.
        address: the client's IP address.
    """

    application: str
    username: str
    auth_params: JsonObject = field(repr=False)
    protocol: str
    address: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What an authentication function says of the user; None says nothing."""

    display_name: str | None = None
    properties: Mapping[str, JsonValue] | None = None


class Functions(Protocol):
    """The applications' own code: Python functions and webhooks."""

    def authenticates(self, application: Application) -> bool:
        """Whether the application has an authentication function."""

    async def authenticate(self, application: Application, attempt: StartAttempt) -> Profile:
        """Asks the application's authentication function.

        Returns:
            What it says of the user.

        Raises:
            AccessDenied: it refused, raised, took too long or answered nonsense.
            Unavailable: too many attempts wait for it.
        """


# --- observation ---------------------------------------------------------------------------------------------------


class Observer(Protocol):
    """Who counts what happens to sessions."""

    def session_started(self, authentication: Authentication) -> None: ...
    def session_refused(self, code: str) -> None:
        """A start was refused; ``code`` is the OffhookError's."""

    def session_resumed(self, complete: bool) -> None:
        """A session was resumed, with all it missed or with a gap."""

    def session_suspended(self, reason: CloseReason) -> None: ...
    def session_ended(self, reason: EndReason) -> None: ...
