"""A sign-up says an address alone: its password is chosen by whom the mailbox belongs to. Links of sign-ups that were under way are void."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql("DELETE FROM links WHERE purpose = 'confirm'")
    with op.batch_alter_table("links") as table:
        table.drop_column("password")


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DELETE FROM links WHERE purpose = 'sign-up'")
    with op.batch_alter_table("links") as table:
        table.add_column(sa.Column("password", sa.String(200)))
