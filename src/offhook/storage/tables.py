"""The tables, as SQLAlchemy Core sees them. The migrations make them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal_column,
    true,
)

from offhook.codes import EndReason
from offhook.domain.accounts import SessionPolicy, TokenPolicy, WebhookPolicy
from offhook.domain.sessions import Authentication, SessionState, StoryKind
from offhook.domain.subscriptions import Owed, Product
from offhook.storage.types import Choice, Id, Json, Name, UtcTime

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", Name, primary_key=True),
    Column("value", String, nullable=False),
)
"""Facts about the database itself, e.g. the journal's epoch."""

applications = Table(
    "applications",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Name, nullable=False, unique=True),
    Column("domain", Name, nullable=False, unique=True),
    Column("api_key", Name, nullable=False, unique=True),
    Column("client_id", String, nullable=False),
    Column("client_secret_hash", String, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("guests", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("sessions", Json(SessionPolicy), nullable=False),
    Column("tokens", Json(TokenPolicy)),
    Column("webhook", Json(WebhookPolicy)),
    # The domain casefolded: by what it is found, and what must be unique. None for an application whose domain, before
    # case was looked past, differed only by case from that of an older one.
    Column("domain_key", Name),
    Index("ix_applications_domain", "domain_key", unique=True),
    sqlite_autoincrement=True,
)

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("application_id", Id, ForeignKey("applications.id", ondelete="CASCADE"), nullable=False),
    Column("name", Name, nullable=False),
    Column("display_name", String, nullable=False),
    # The display name casefolded: what users are ordered and searched by. SQLite's own lower() knows only ASCII.
    Column("display_key", Name, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("picture", String),
    Column("guest", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("status", String),
    Column("online", Boolean, nullable=False),
    Column("properties", Json(dict), nullable=False),
    Column("password_hash", String),
    Column("closed", Boolean, nullable=False, server_default=false()),
    Column("note", String, nullable=False, server_default=""),
    UniqueConstraint("application_id", "name"),
    sqlite_autoincrement=True,
)

ONLINE = users.c.online.is_(true())
Index("ix_users_display", users.c.application_id, users.c.display_key, users.c.id)
Index(
    "ix_users_online",
    users.c.application_id,
    users.c.display_key,
    users.c.id,
    sqlite_where=ONLINE,
    postgresql_where=ONLINE,
)

blocks = Table(
    "blocks",
    metadata,
    Column("blocker_id", Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("blocked_id", Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("blocked_at", UtcTime, nullable=False),
    Index("ix_blocks_blocked", "blocked_id"),
    sqlite_with_rowid=False,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("application_id", Id, ForeignKey("applications.id", ondelete="CASCADE"), nullable=False),
    # No foreign key: a session's row outlives its user.
    Column("user_id", Id, nullable=False),
    Column("user_name", Name, nullable=False),
    Column("protocol", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("address", String, nullable=False),
    Column("secure", Boolean, nullable=False),
    Column("authentication", Choice(Authentication), nullable=False),
    Column("state", Choice(SessionState), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("node", Name, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("connected_at", UtcTime, nullable=False),
    Column("suspended_at", UtcTime),
    Column("leave_at", UtcTime),
    Column("resumable_until", UtcTime),
    Column("ended_at", UtcTime),
    Column("end_reason", Choice(EndReason)),
    Column("resumes", Integer, nullable=False),
    Column("positions", Json(dict), nullable=False),
    Column("epoch", String, nullable=False),
    Column("expires_at", UtcTime),
    Column("announces", Boolean, nullable=False, server_default=true()),
    Index("ix_sessions_user_name", "application_id", "user_name"),
    sqlite_autoincrement=True,
)

# A partial index serves only queries that repeat its condition word for word, hence the literals. What it compares with
# a literal no query should compare with a parameter: SQLite would plan that query anew at every execution.
LIVE = sessions.c.state != literal_column("'ended'")
ENDED = sessions.c.state == literal_column("'ended'")
ACTIVE = sessions.c.state == literal_column("'active'")
STARTING = sessions.c.state == literal_column("'starting'")
SUSPENDED = sessions.c.state == literal_column("'suspended'")
RENEWED = ACTIVE & sessions.c.expires_at.is_not(None)
Index("ix_sessions_live", sessions.c.user_id, sqlite_where=LIVE, postgresql_where=LIVE)
Index("ix_sessions_node", sessions.c.node, sqlite_where=ACTIVE, postgresql_where=ACTIVE)
Index("ix_sessions_leaving", sessions.c.leave_at, sqlite_where=SUSPENDED, postgresql_where=SUSPENDED)
Index("ix_sessions_expiring", sessions.c.resumable_until, sqlite_where=SUSPENDED, postgresql_where=SUSPENDED)
Index("ix_sessions_starting", sessions.c.resumable_until, sqlite_where=STARTING, postgresql_where=STARTING)
# Sessions that need not be renewed, most of all, stay out of it.
Index("ix_sessions_renewed", sessions.c.expires_at, sqlite_where=RENEWED, postgresql_where=RENEWED)
Index("ix_sessions_ended", sessions.c.ended_at, sqlite_where=ENDED, postgresql_where=ENDED)

stories = Table(
    "stories",
    metadata,
    Column("id", Id, primary_key=True),
    Column("session_id", Id, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("kind", Choice(StoryKind), nullable=False),
    Column("reason", String, nullable=False),
    Column("detail", Text, nullable=False),
    Index("ix_stories_session", "session_id"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("session_id", Id, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("product", Choice(Product), nullable=False),
    Column("services", Json(tuple[str, ...]), nullable=False),
    Column("lifetime", Float, nullable=False),
    Column("localization", String, nullable=False),
    Column("correlator", String),
    Column("login", String, nullable=False),
    Column("device", String, nullable=False),
    Column("watched", Json(tuple[str, ...]), nullable=False),
    Column("owed", Json(tuple[Owed, ...]), nullable=False),
    Column("backlog", Id, nullable=False),
    Column("im_since", Id, nullable=False),
    Column("version", Integer, nullable=False),
    Column("watched_since", Id),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Id, primary_key=True),
    Column("application_id", Id, ForeignKey("applications.id", ondelete="CASCADE"), nullable=False),
    # No foreign keys: what two users wrote outlives either of them, for the other. The lower id comes first.
    Column("one_id", Id, nullable=False),
    Column("other_id", Id, nullable=False),
    Column("one", String, nullable=False),
    Column("other", String, nullable=False),
    UniqueConstraint("one_id", "other_id"),
    Index("ix_conversations_application", "application_id"),
    Index("ix_conversations_other", "other_id"),
    sqlite_autoincrement=True,
)

messages = Table(
    "messages",
    metadata,
    Column("id", Id, primary_key=True),
    # No foreign key: they go with their application because their conversation does.
    Column("application_id", Id, nullable=False),
    Column("conversation_id", Id, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("sender_id", Id, nullable=False),
    Column("sender", String, nullable=False),
    Column("recipient_id", Id, nullable=False),
    Column("recipient", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("sent_at", UtcTime, nullable=False),
    Column("hidden_from_sender", Boolean, nullable=False),
    Column("hidden_from_recipient", Boolean, nullable=False),
    Index("ix_messages_recipient", "recipient_id", "id"),
    Index("ix_messages_conversation", "conversation_id", "id"),
    sqlite_autoincrement=True,
)

inboxes = Table(
    "inboxes",
    metadata,
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    # Id of the last message that a client of the user is known to have got.
    Column("delivered", Id, nullable=False),
)

used_tokens = Table(
    "used_tokens",
    metadata,
    Column("digest", Name, primary_key=True),
    Column("until", UtcTime, nullable=False),
    Index("ix_used_tokens_until", "until"),
    sqlite_with_rowid=False,
)

topics = Table(
    "topics",
    metadata,
    Column("topic", Name, primary_key=True),
    Column("head", Id, nullable=False),
    # When what the topic speaks of was deleted; then nothing more is published to it.
    Column("closed_at", UtcTime),
    sqlite_with_rowid=False,
)
Index(
    "ix_topics_closed",
    topics.c.closed_at,
    sqlite_where=topics.c.closed_at.is_not(None),
    postgresql_where=topics.c.closed_at.is_not(None),
)

journal = Table(
    "journal",
    metadata,
    # In the order of the commits, so that the oldest entries lie together at the start.
    Column("id", Id, primary_key=True),
    Column("topic", Name, nullable=False),
    Column("offset", Id, nullable=False),
    Column("event", LargeBinary, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    UniqueConstraint("topic", "offset"),
)

files = Table(
    "files",
    metadata,
    Column("name", Name, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)
"""Uploaded files, where the database is a server's. SQLite's lie beside it on the disk."""

leases = Table(
    "leases",
    metadata,
    Column("name", Name, primary_key=True),
    Column("holder", String, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)
