"""Subscriptions, messages and used tokens; presence with a note; domains whatever their case."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_time = sa.BigInteger
_json = sa.Text


def upgrade() -> None:
    op.add_column("users", sa.Column("closed", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("users", sa.Column("note", sa.String, nullable=False, server_default=""))
    _extend_applications()
    _extend_sessions()
    _create_subscriptions()
    _create_messages()
    op.create_table(
        "used_tokens",
        sa.Column("digest", _name, primary_key=True),
        sa.Column("until", _time, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_used_tokens_until", "used_tokens", ["until"])


def _extend_applications() -> None:
    op.add_column("applications", sa.Column("domain_key", _name))
    applications = sa.table("applications", sa.column("id"), sa.column("domain"), sa.column("domain_key"))
    connection = op.get_bind()
    taken: set[str] = set()
    for key, domain in connection.execute(sa.select(applications.c.id, applications.c.domain).order_by("id")).all():
        # Domains that differ only by case could be stored until now. The oldest application is the one to be found.
        folded = str(domain).casefold()
        if folded not in taken:
            taken.add(folded)
            connection.execute(sa.update(applications).where(applications.c.id == key).values(domain_key=folded))
    op.create_index("ix_applications_domain", "applications", ["domain_key"], unique=True)


def _extend_sessions() -> None:
    op.add_column("sessions", sa.Column("expires_at", _time))
    op.add_column("sessions", sa.Column("announces", sa.Boolean, nullable=False, server_default=sa.true()))
    for name, column, condition in (
        ("ix_sessions_starting", "resumable_until", "state = 'starting'"),
        ("ix_sessions_renewed", "expires_at", "state = 'active' AND expires_at IS NOT NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, "sessions", [column], sqlite_where=where, postgresql_where=where)


def _create_subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("session_id", _id, sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("product", sa.String, nullable=False),
        sa.Column("services", _json, nullable=False),
        sa.Column("lifetime", sa.Float, nullable=False),
        sa.Column("localization", sa.String, nullable=False),
        sa.Column("correlator", sa.String),
        sa.Column("login", sa.String, nullable=False),
        sa.Column("device", sa.String, nullable=False),
        sa.Column("watched", _json, nullable=False),
        sa.Column("owed", _json, nullable=False),
        sa.Column("backlog", _id, nullable=False),
        sa.Column("im_since", _id, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )


def _create_messages() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", _id, primary_key=True),
        sa.Column("application_id", _id, sa.ForeignKey("applications.id", ondelete="CASCADE"), nullable=False),
        sa.Column("one_id", _id, nullable=False),
        sa.Column("other_id", _id, nullable=False),
        sa.Column("one", sa.String, nullable=False),
        sa.Column("other", sa.String, nullable=False),
        sa.UniqueConstraint("one_id", "other_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_conversations_application", "conversations", ["application_id"])
    op.create_index("ix_conversations_other", "conversations", ["other_id"])
    op.create_table(
        "messages",
        sa.Column("id", _id, primary_key=True),
        sa.Column("application_id", _id, nullable=False),
        sa.Column("conversation_id", _id, sa.ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
        sa.Column("sender_id", _id, nullable=False),
        sa.Column("sender", sa.String, nullable=False),
        sa.Column("recipient_id", _id, nullable=False),
        sa.Column("recipient", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("sent_at", _time, nullable=False),
        sa.Column("hidden_from_sender", sa.Boolean, nullable=False),
        sa.Column("hidden_from_recipient", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_messages_recipient", "messages", ["recipient_id", "id"])
    op.create_index("ix_messages_conversation", "messages", ["conversation_id", "id"])
    op.create_table(
        "inboxes",
        sa.Column("user_id", _id, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("delivered", _id, nullable=False),
    )
