"""From where on a subscription is told what changes of those whom it watches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("watched_since", sa.BigInteger().with_variant(sa.Integer, "sqlite")))
