"""Events by item, and which items lost some: what learning the rows of items reads.

Revision: 20261123_item_events
Follows: 20261123_exploration
"""

import sqlalchemy as sa
from alembic import op

revision = "20261123_item_events"
down_revision = "20261123_exploration"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_index(
        op.f("ix_interactions_item_key_occurred_at_key"), "interactions", ["item_key", "occurred_at", "key"]
    )
    op.create_table(
        "withdrawals",
        sa.Column("key", KEY, nullable=False),
        sa.Column("item_key", KEY, nullable=False),
        sa.ForeignKeyConstraint(["item_key"], ["items.key"], name=op.f("fk_withdrawals_item_key_items")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_withdrawals")),
        sqlite_autoincrement=True,
    )
