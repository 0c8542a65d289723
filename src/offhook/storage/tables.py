"""The tables, as SQLAlchemy Core sees them. The migrations make them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    true,
)

from offhook.codes import EndReason
from offhook.domain.accounts import SessionPolicy, TokenPolicy, WebhookPolicy
from offhook.domain.sessions import Authentication, SessionState, StoryKind
from offhook.storage.types import Choice, Id, Json, UtcTime

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)
"""Facts about the database itself, e.g. the journal's epoch."""

applications = Table(
    "applications",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("domain", String, nullable=False, unique=True),
    Column("api_key", String, nullable=False, unique=True),
    Column("client_id", String, nullable=False),
    Column("client_secret_hash", String, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("guests", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("sessions", Json(SessionPolicy), nullable=False),
    Column("tokens", Json(TokenPolicy)),
    Column("webhook", Json(WebhookPolicy)),
    sqlite_autoincrement=True,
)

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("application_id", Id, ForeignKey("applications.id", ondelete="CASCADE"), nullable=False),
    Column("name", String, nullable=False),
    Column("display_name", String, nullable=False),
    # The display name casefolded: what users are ordered and searched by. SQLite's own lower() knows only ASCII.
    Column("display_key", String, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("picture", String),
    Column("guest", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("status", String),
    Column("online", Boolean, nullable=False),
    Column("properties", Json(dict), nullable=False),
    Column("password_hash", String),
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
    Column("user_name", String, nullable=False),
    Column("protocol", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("address", String, nullable=False),
    Column("secure", Boolean, nullable=False),
    Column("authentication", Choice(Authentication), nullable=False),
    Column("state", Choice(SessionState), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("node", String, nullable=False),
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
    Index("ix_sessions_user_name", "application_id", "user_name"),
    sqlite_autoincrement=True,
)

# A partial index serves only queries that repeat its condition word for word, hence the literals.
LIVE = sessions.c.state != literal_column("'ended'")
ENDED = sessions.c.state == literal_column("'ended'")
ACTIVE = sessions.c.state == literal_column("'active'")
SUSPENDED = sessions.c.state == literal_column("'suspended'")
Index("ix_sessions_live", sessions.c.user_id, sqlite_where=LIVE, postgresql_where=LIVE)
Index("ix_sessions_node", sessions.c.node, sqlite_where=ACTIVE, postgresql_where=ACTIVE)
Index("ix_sessions_leaving", sessions.c.leave_at, sqlite_where=SUSPENDED, postgresql_where=SUSPENDED)
Index("ix_sessions_expiring", sessions.c.resumable_until, sqlite_where=SUSPENDED, postgresql_where=SUSPENDED)
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

topics = Table(
    "topics",
    metadata,
    Column("topic", String, primary_key=True),
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
    Column("topic", String, nullable=False),
    Column("offset", Id, nullable=False),
    Column("event", LargeBinary, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    UniqueConstraint("topic", "offset"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)
