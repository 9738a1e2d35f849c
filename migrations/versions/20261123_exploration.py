"""Exploration: settings, rewards and arms; slates that settle.

Revision: 20261123_exploration
Follows: 20261122_first_tables
"""

import sqlalchemy as sa
from alembic import op

revision = "20261123_exploration"
down_revision = "20261122_first_tables"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NOTHING = sa.text("0")

# What was shown before this revision counts too, so that arms equal the log from the first day.
COUNT_SHOWS = """
    INSERT INTO arms (domain_key, policy, item_key, shows, judged, micros)
    SELECT slates.domain_key, slates.policy ->> 'policy', CAST(place.value ->> 0 AS BIGINT), COUNT(*), 0, 0
    FROM slates, {places} AS place
    GROUP BY 1, 2, 3
"""


def upgrade() -> None:
    # Without a copy of the table (`batch`): the release still running goes on writing to it on Postgres.
    for name in ("settle_at", "settled_at", "default_micros"):
        op.add_column("slates", sa.Column(name, sa.BigInteger(), nullable=True))
    for name in ("settle_at", "settled_at"):
        some = sa.text(f"{name} IS NOT NULL")
        op.create_index(f"ix_slates_{name}", "slates", [name], sqlite_where=some, postgresql_where=some)

    op.create_table(
        "rewards",
        sa.Column("key", KEY, nullable=False),
        sa.Column("event_id", sa.String(), nullable=True),
        sa.Column("content_digest", sa.LargeBinary(), nullable=True),
        sa.Column("interaction_id", sa.String(), nullable=True),
        sa.Column("slate_id", sa.String(), nullable=False),
        sa.Column("item_key", KEY, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("micros", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["slate_id"], ["slates.slate_id"], name=op.f("fk_rewards_slate_id_slates"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rewards")),
        sa.UniqueConstraint("event_id", name=op.f("uq_rewards_event_id")),
        sa.UniqueConstraint("interaction_id", name=op.f("uq_rewards_interaction_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_rewards_slate_id_item_key"), "rewards", ["slate_id", "item_key"])

    counts = [sa.Column(name, sa.BigInteger(), nullable=False) for name in ("shows", "judged", "micros")]
    op.create_table(
        "arms",
        sa.Column("domain_key", KEY, nullable=False, autoincrement=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("item_key", KEY, nullable=False, autoincrement=False),
        *counts,
        *(sa.Column(f"base_{c.name}", sa.BigInteger(), nullable=False, server_default=NOTHING) for c in counts),
        sa.PrimaryKeyConstraint("domain_key", "policy", "item_key", name=op.f("pk_arms")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "exploration",
        sa.Column("domain_key", KEY, nullable=False, autoincrement=False),
        sa.Column("settings", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["domain_key"], ["domains.key"], name=op.f("fk_exploration_domain_key_domains")),
        sa.PrimaryKeyConstraint("domain_key", name=op.f("pk_exploration")),
    )

    places = (
        "json_each(slates.items)" if op.get_bind().dialect.name == "sqlite" else "json_array_elements(slates.items)"
    )
    op.execute(COUNT_SHOWS.format(places=places))
    op.execute("INSERT INTO revisions (name, value) VALUES ('exploration', 0)")
