"""Organizers, meetings, sessions, grants; the relays last seen; counters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "organizers",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("key_digest", sa.LargeBinary(32)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organizers"),
        sa.UniqueConstraint("name", name="uq_organizers_name"),
        sa.UniqueConstraint("key_digest", name="uq_organizers_key_digest"),
    )
    op.create_table(
        "meetings",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("held", sa.Integer),
        sa.Column("organizer_id", sa.Integer, nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("meeting_key", sa.LargeBinary(32), nullable=False),
        sa.Column("invite", sa.LargeBinary(8), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_meetings"),
        sa.UniqueConstraint("held", name="uq_meetings_held"),
        sa.ForeignKeyConstraint(["organizer_id"], ["organizers.id"], name="fk_meetings_organizer_id"),
        sa.CheckConstraint("state IN ('scheduled', 'open', 'ended')", name="ck_meetings_state"),
        sa.CheckConstraint("(state = 'ended') = (ended_at IS NOT NULL)", name="ck_meetings_ended"),
        sa.CheckConstraint("number BETWEEN 100000000 AND 999999999", name="ck_meetings_number"),
    )
    op.create_index("ix_meetings_organizer_id", "meetings", ["organizer_id"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.LargeBinary(8), nullable=False),
        sa.Column("meeting_id", sa.Integer, nullable=False),
        sa.Column("secret", sa.LargeBinary(32)),
        sa.Column("office", sa.BigInteger, nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("granted", sa.Integer, nullable=False),
        sa.Column("primary_node", sa.String(64), nullable=False),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["meeting_id"], ["meetings.id"], name="fk_sessions_meeting_id"),
        sa.CheckConstraint("(secret IS NULL) = (ended_at IS NOT NULL)", name="ck_sessions_erased"),
    )
    op.create_index("ix_sessions_meeting_id", "sessions", ["meeting_id"])
    running = sa.text("ended_at IS NULL")
    op.create_index("uq_sessions_running", "sessions", ["meeting_id"], unique=True, sqlite_where=running, postgresql_where=running)
    op.create_table(
        "grants",
        sa.Column("session_id", sa.LargeBinary(8), nullable=False),
        sa.Column("participant", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("role", sa.SmallInteger, nullable=False),
        sa.Column("token", sa.LargeBinary(8)),
        sa.Column("issued_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
        sa.PrimaryKeyConstraint("session_id", "participant", name="pk_grants"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_grants_session_id"),
    )
    op.create_table(
        "nodes",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("info", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_nodes"),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )


def downgrade() -> None:
    for table in ("counters", "nodes", "grants", "sessions", "meetings", "organizers"):
        op.drop_table(table)
