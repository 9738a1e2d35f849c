"""Writes that their caller has named, and the secret that names are kept under.

Revision: 20261125_idempotency
Follows: 20261123_item_events
"""

import secrets as chance

import sqlalchemy as sa
from alembic import op

revision = "20261125_idempotency"
down_revision = "20261123_item_events"
branch_labels = None
depends_on = None


def upgrade() -> None:
    secrets = op.create_table(
        "secrets",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )
    op.bulk_insert(secrets, [{"name": "digests", "value": chance.token_bytes(32)}])
    op.create_table(
        "idempotency",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"])
