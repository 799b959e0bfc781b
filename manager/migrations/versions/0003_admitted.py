"""Attendance: who was let in, and not who took a ticket. Of what was before, only the tickets are known."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("grants") as table:
        table.add_column(sa.Column("admitted_at", sa.Double))
    op.get_bind().exec_driver_sql("UPDATE grants SET admitted_at = issued_at")


def downgrade() -> None:
    with op.batch_alter_table("grants") as table:
        table.drop_column("admitted_at")
