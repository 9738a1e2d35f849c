"""The tables, for SQLite and Postgres alike. A change takes a migration; `warmstart db check` tells.

Keys are 64-bit and never used twice, not even after a delete: caches and item tables are addressed by them. Times are
Unix microseconds.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
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
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Key = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself only in a column declared INTEGER, which holds 64 bits there."""

Object = JSON(none_as_null=True)

revisions = Table(
    "revisions",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""One row a counter. Its row lock is held until commit, so revisions become visible in ascending order. The row
`installation` holds a random number instead, which never changes."""

domains = Table(
    "domains",
    metadata,
    Column("key", Key, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("title", String),
    Column("rating_min", Float(53), nullable=False),
    Column("rating_max", Float(53), nullable=False),
    Column("kinds", Object, nullable=False),
    Column("attributes", Object, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

items = Table(
    "items",
    metadata,
    Column("key", Key, primary_key=True),
    Column("domain_key", Key, ForeignKey("domains.key"), nullable=False),
    Column("item_id", String, nullable=False),
    Column("title", String),
    Column("attributes", Object),
    Column("available", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("revision", BigInteger, nullable=False, index=True),
    UniqueConstraint("domain_key", "item_id"),
    Index(None, "domain_key", "key"),
    sqlite_autoincrement=True,
)
"""Title and attributes both NULL: nothing but the id is known."""

users = Table(
    "users",
    metadata,
    Column("key", Key, primary_key=True),
    Column("user_id", String, nullable=False, unique=True),
    Column("attributes", Object, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("erasing", Boolean, nullable=False, server_default=false()),
    sqlite_autoincrement=True,
)
"""`erasing`: the user is being erased; nobody reads or writes them any more."""

interactions = Table(
    "interactions",
    metadata,
    Column("key", Key, primary_key=True),
    Column("event_id", String, unique=True),
    Column("content_digest", LargeBinary),
    Column("user_key", Key, ForeignKey("users.key", ondelete="CASCADE"), nullable=False),
    Column("item_key", Key, ForeignKey("items.key"), nullable=False),
    Column("kind", String, nullable=False),
    Column("value", Float(53)),
    Column("occurred_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("slate_id", String),
    Column("context", Object),
    Index(None, "user_key", "occurred_at", "key"),
    Index(None, "item_key", "occurred_at", "key"),
    sqlite_autoincrement=True,
)
"""`content_digest` tells an event sent again from another under the same id; it is there where an id is."""

withdrawals = Table(
    "withdrawals",
    metadata,
    Column("key", Key, primary_key=True),
    Column("item_key", Key, ForeignKey("items.key"), nullable=False),
    sqlite_autoincrement=True,
)
"""Items of which an event was taken back or erased, in that order; of whom is not kept."""

slates = Table(
    "slates",
    metadata,
    Column("slate_id", String, primary_key=True),
    Column("user_key", Key, ForeignKey("users.key", ondelete="CASCADE")),
    Column("domain_key", Key, ForeignKey("domains.key"), nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("policy", Object, nullable=False),
    Column("items", Object, nullable=False),
    Column("parts", Object, nullable=False),
    Column("settle_at", BigInteger),
    Column("settled_at", BigInteger),
    Column("default_micros", BigInteger),
    Index(None, "user_key", "created_at"),
    Index(
        "ix_slates_settle_at",
        "settle_at",
        sqlite_where=text("settle_at IS NOT NULL"),
        postgresql_where=text("settle_at IS NOT NULL"),
    ),
    Index(
        "ix_slates_settled_at",
        "settled_at",
        sqlite_where=text("settled_at IS NOT NULL"),
        postgresql_where=text("settled_at IS NOT NULL"),
    ),
)
"""`settle_at`: when places without a reward are to get the default one; NULL: never, or done. Then `settled_at` says
when that was and `default_micros` what a place without any reward counts as."""

rewards = Table(
    "rewards",
    metadata,
    Column("key", Key, primary_key=True),
    Column("event_id", String, unique=True),
    Column("content_digest", LargeBinary),
    Column("interaction_id", String, unique=True),
    Column("slate_id", String, ForeignKey("slates.slate_id", ondelete="CASCADE"), nullable=False),
    Column("item_key", Key, nullable=False),
    Column("kind", String, nullable=False),
    Column("micros", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Index(None, "slate_id", "item_key"),
    sqlite_autoincrement=True,
)
"""What came of shown items, in millionths: integers add up to the same sum in any order. `interaction_id` is the event
id of the interaction that a reward follows from, if it does and if that has one."""

arms = Table(
    "arms",
    metadata,
    Column("domain_key", Key, primary_key=True, autoincrement=False),
    Column("policy", String, primary_key=True),
    Column("item_key", Key, primary_key=True, autoincrement=False),
    Column("shows", BigInteger, nullable=False),
    Column("judged", BigInteger, nullable=False),
    Column("micros", BigInteger, nullable=False),
    Column("base_shows", BigInteger, nullable=False, server_default="0"),
    Column("base_judged", BigInteger, nullable=False, server_default="0"),
    Column("base_micros", BigInteger, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)
"""What each policy showed and what came of it. Counts equal base + log, always; the base is what has left the log."""

exploration = Table(
    "exploration",
    metadata,
    Column("domain_key", Key, ForeignKey("domains.key"), primary_key=True, autoincrement=False),
    Column("settings", Object, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
"""How each domain explores, where somebody has said so."""

deployments = Table(
    "deployments",
    metadata,
    Column("key", Key, primary_key=True),
    Column("domain_key", Key, ForeignKey("domains.key"), nullable=False),
    Column("role", String, nullable=False),
    Column("checkpoint", String),
    Column("digest", String),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "domain_key", "role", "key"),
    sqlite_autoincrement=True,
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
"""Random bytes that belong to the installation and never leave it. `digests`: the key of `app.storage.digests`;
`tokens 0`, `tokens 1`: what tokens of users are signed with, and were before."""

idempotency = Table(
    "idempotency",
    metadata,
    Column("name", String, primary_key=True),
    Column("request", String, nullable=False),
    Column("result", Object, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
)
"""Writes that were done under an `Idempotency-Key`: keyed digests of caller and key, and of the request; the result has
counts only."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("scopes", Object, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("rate_limit", String),
)
"""Who may use the service. Of a key its SHA-256 is kept; rows stay when it is revoked, so that the service does not
open to everybody with the last one."""

erasures = Table(
    "erasures",
    metadata,
    Column("key", Key, primary_key=True),
    Column("user_key", Key, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("erased_at", BigInteger),
    Column("finished_at", BigInteger),
    sqlite_autoincrement=True,
)
"""Users that are to be forgotten, by a key that names nobody any more once they are. `erased_at`: nothing of them is
left in the database. `finished_at`: nor in a cache, or on its way there."""

tombstones = Table(
    "tombstones",
    metadata,
    Column("digest", String, primary_key=True),
    Column("erased_at", BigInteger, nullable=False, index=True),
)
"""Keyed digests of erased users' ids and of their events, so that what is sent late does not bring them back."""

AUDIT_ACTS = "method <> 'GET' OR problem IS NOT NULL"
"""All but reads that were answered, of which a page that is left open makes thousands a day."""

audit = Table(
    "audit",
    metadata,
    Column("key", Key, primary_key=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("key_id", String),
    Column("method", String, nullable=False),
    Column("route", String, nullable=False),
    Column("request_id", String),
    Column("status", Integer),
    Column("problem", String),
    Index("ix_audit_acts", "key", sqlite_where=text(AUDIT_ACTS), postgresql_where=text(AUDIT_ACTS)),
    sqlite_autoincrement=True,
)
"""What was asked of admin routes, refused or not. Routes are templates, so that nobody's id is in here."""
