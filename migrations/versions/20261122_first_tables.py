"""First tables.

Revision: 20261122_first_tables
Follows: None
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "20261122_first_tables"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "domains",
        sa.Column("key", KEY, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=True),
        sa.Column("rating_min", sa.Float(precision=53), nullable=False),
        sa.Column("rating_max", sa.Float(precision=53), nullable=False),
        sa.Column("kinds", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("attributes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_domains")),
        sa.UniqueConstraint("name", name=op.f("uq_domains_name")),
        sqlite_autoincrement=True,
    )
    revisions = op.create_table(
        "revisions",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_revisions")),
    )
    op.create_table(
        "users",
        sa.Column("key", KEY, nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("attributes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_users")),
        sa.UniqueConstraint("user_id", name=op.f("uq_users_user_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "deployments",
        sa.Column("key", KEY, nullable=False),
        sa.Column("domain_key", KEY, nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("checkpoint", sa.String(), nullable=True),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["domain_key"], ["domains.key"], name=op.f("fk_deployments_domain_key_domains")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_deployments")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_deployments_domain_key_role_key"), "deployments", ["domain_key", "role", "key"])

    op.create_table(
        "items",
        sa.Column("key", KEY, nullable=False),
        sa.Column("domain_key", KEY, nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=True),
        sa.Column("attributes", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("available", sa.Boolean(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["domain_key"], ["domains.key"], name=op.f("fk_items_domain_key_domains")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_items")),
        sa.UniqueConstraint("domain_key", "item_id", name=op.f("uq_items_domain_key_item_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_items_domain_key_key"), "items", ["domain_key", "key"])
    op.create_index(op.f("ix_items_revision"), "items", ["revision"])

    op.create_table(
        "slates",
        sa.Column("slate_id", sa.String(), nullable=False),
        sa.Column("user_key", KEY, nullable=True),
        sa.Column("domain_key", KEY, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("items", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("parts", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["domain_key"], ["domains.key"], name=op.f("fk_slates_domain_key_domains")),
        sa.ForeignKeyConstraint(["user_key"], ["users.key"], name=op.f("fk_slates_user_key_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("slate_id", name=op.f("pk_slates")),
    )
    op.create_index(op.f("ix_slates_created_at"), "slates", ["created_at"])
    op.create_index(op.f("ix_slates_user_key_created_at"), "slates", ["user_key", "created_at"])

    op.create_table(
        "interactions",
        sa.Column("key", KEY, nullable=False),
        sa.Column("event_id", sa.String(), nullable=True),
        sa.Column("content_digest", sa.LargeBinary(), nullable=True),
        sa.Column("user_key", KEY, nullable=False),
        sa.Column("item_key", KEY, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("slate_id", sa.String(), nullable=True),
        sa.Column("context", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["item_key"], ["items.key"], name=op.f("fk_interactions_item_key_items")),
        sa.ForeignKeyConstraint(
            ["user_key"], ["users.key"], name=op.f("fk_interactions_user_key_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_interactions")),
        sa.UniqueConstraint("event_id", name=op.f("uq_interactions_event_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_interactions_user_key_occurred_at_key"), "interactions", ["user_key", "occurred_at", "key"]
    )

    counters = [{"name": "catalogue", "value": 0}, {"name": "deployments", "value": 0}]
    op.bulk_insert(revisions, [*counters, {"name": "installation", "value": secrets.randbits(62)}])
