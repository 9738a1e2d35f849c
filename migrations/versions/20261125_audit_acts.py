"""The record of admin acts can be read without the reads that are in it.

Revision: 20261125_audit_acts
Follows: 20261125_audit
"""

import sqlalchemy as sa
from alembic import op

revision = "20261125_audit_acts"
down_revision = "20261125_audit"
branch_labels = None
depends_on = None

ACTS = "method <> 'GET' OR problem IS NOT NULL"


def upgrade() -> None:
    op.create_index("ix_audit_acts", "audit", ["key"], sqlite_where=sa.text(ACTS), postgresql_where=sa.text(ACTS))
