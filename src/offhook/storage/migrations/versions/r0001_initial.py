"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_time = sa.BigInteger
_json = sa.Text


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("key", _name, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
    op.create_table(
        "applications",
        sa.Column("id", _id, primary_key=True),
        sa.Column("name", _name, nullable=False, unique=True),
        sa.Column("domain", _name, nullable=False, unique=True),
        sa.Column("api_key", _name, nullable=False, unique=True),
        sa.Column("client_id", sa.String, nullable=False),
        sa.Column("client_secret_hash", sa.String, nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("guests", sa.Boolean, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("sessions", _json, nullable=False),
        sa.Column("tokens", _json),
        sa.Column("webhook", _json),
        sqlite_autoincrement=True,
    )
    _create_users()
    _create_sessions()
    _create_journal()


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", _id, primary_key=True),
        sa.Column("application_id", _id, sa.ForeignKey("applications.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", _name, nullable=False),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("display_key", _name, nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("picture", sa.String),
        sa.Column("guest", sa.Boolean, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("status", sa.String),
        sa.Column("online", sa.Boolean, nullable=False),
        sa.Column("properties", _json, nullable=False),
        sa.Column("password_hash", sa.String),
        sa.UniqueConstraint("application_id", "name"),
        sqlite_autoincrement=True,
    )
    online = sa.column("online", sa.Boolean).is_(sa.true())
    ordered = ["application_id", "display_key", "id"]
    op.create_index("ix_users_display", "users", ordered)
    op.create_index("ix_users_online", "users", ordered, sqlite_where=online, postgresql_where=online)
    op.create_table(
        "blocks",
        sa.Column("blocker_id", _id, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("blocked_id", _id, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("blocked_at", _time, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_blocks_blocked", "blocks", ["blocked_id"])


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", _id, primary_key=True),
        sa.Column("application_id", _id, sa.ForeignKey("applications.id", ondelete="CASCADE"), nullable=False),
        sa.Column("user_id", _id, nullable=False),
        sa.Column("user_name", _name, nullable=False),
        sa.Column("protocol", sa.String, nullable=False),
        sa.Column("agent", sa.String, nullable=False),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("secure", sa.Boolean, nullable=False),
        sa.Column("authentication", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("node", _name, nullable=False),
        sa.Column("started_at", _time, nullable=False),
        sa.Column("connected_at", _time, nullable=False),
        sa.Column("suspended_at", _time),
        sa.Column("leave_at", _time),
        sa.Column("resumable_until", _time),
        sa.Column("ended_at", _time),
        sa.Column("end_reason", sa.String),
        sa.Column("resumes", sa.Integer, nullable=False),
        sa.Column("positions", _json, nullable=False),
        sa.Column("epoch", sa.String, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sessions_user_name", "sessions", ["application_id", "user_name"])
    for name, column, condition in (
        ("ix_sessions_live", "user_id", "sessions.state != 'ended'"),
        ("ix_sessions_node", "node", "sessions.state = 'active'"),
        ("ix_sessions_leaving", "leave_at", "sessions.state = 'suspended'"),
        ("ix_sessions_expiring", "resumable_until", "sessions.state = 'suspended'"),
        ("ix_sessions_ended", "ended_at", "sessions.state = 'ended'"),
    ):
        where = sa.text(condition.removeprefix("sessions."))
        op.create_index(name, "sessions", [column], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "stories",
        sa.Column("id", _id, primary_key=True),
        sa.Column("session_id", _id, sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", _time, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("ix_stories_session", "stories", ["session_id"])


def _create_journal() -> None:
    op.create_table(
        "topics",
        sa.Column("topic", _name, primary_key=True),
        sa.Column("head", _id, nullable=False),
        sa.Column("closed_at", _time),
        sqlite_with_rowid=False,
    )
    closed = sa.column("closed_at").is_not(None)
    op.create_index("ix_topics_closed", "topics", ["closed_at"], sqlite_where=closed, postgresql_where=closed)
    op.create_table(
        "journal",
        sa.Column("id", _id, primary_key=True),
        sa.Column("topic", _name, nullable=False),
        sa.Column("offset", _id, nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.UniqueConstraint("topic", "offset"),
    )
    op.create_table(
        "leases",
        sa.Column("name", _name, primary_key=True),
        sa.Column("holder", sa.String, nullable=False),
        sa.Column("expires_at", _time, nullable=False),
    )
