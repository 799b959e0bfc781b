"""People: accounts with passwords and second factors in the place of bare organizers; schedules; the audit log.

Organizers become accounts without e-mail, their keys API tokens with the scopes that they had. The audit log refuses changes by itself.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("accounts", "tokens", "logins", "passkeys", "recovery_codes", "links", "lockouts", "policies", "audit", "idempotency")
OLD_STATES = "state IN ('scheduled', 'open', 'ended')"
STATES = "state IN ('scheduled', 'open', 'ended', 'cancelled')"
OLD_ENDED = "(state = 'ended') = (ended_at IS NOT NULL)"
ENDED = "(state IN ('ended', 'cancelled')) = (ended_at IS NOT NULL)"


def upgrade() -> None:
    _create_tables()
    db = op.get_bind()
    db.exec_driver_sql(
        "INSERT INTO accounts (id, name, role, active, totp_step, factor_required, features, zone, language, created_at) "
        "SELECT id, name, 'organizer', key_digest IS NOT NULL, 0, FALSE, '[]', 'UTC', 'en', created_at FROM organizers"
    )
    db.exec_driver_sql(
        "INSERT INTO tokens (account_id, name, digest, scopes, created_at) "
        "SELECT id, 'key', key_digest, 'meetings:read meetings:write host', created_at FROM organizers WHERE key_digest IS NOT NULL"
    )
    with op.batch_alter_table("meetings") as table:
        table.drop_constraint("fk_meetings_organizer_id", type_="foreignkey")
        table.create_foreign_key("fk_meetings_organizer_id", "accounts", ["organizer_id"], ["id"])
        table.drop_constraint("ck_meetings_state", type_="check")
        table.create_check_constraint("ck_meetings_state", STATES)
        table.drop_constraint("ck_meetings_ended", type_="check")
        table.create_check_constraint("ck_meetings_ended", ENDED)
        table.alter_column("meeting_key", existing_type=sa.LargeBinary(32), nullable=True)
        table.add_column(sa.Column("starts", sa.String(16)))
        table.add_column(sa.Column("zone", sa.String(64), nullable=False, server_default="UTC"))
        table.add_column(sa.Column("minutes", sa.Integer, nullable=False, server_default="60"))
        table.add_column(sa.Column("repeat", sa.String(200), nullable=False, server_default=""))
        table.add_column(sa.Column("features", sa.String(1000), nullable=False, server_default="[]"))
        table.add_column(sa.Column("uid", sa.String(64), nullable=False, server_default=""))
        table.add_column(sa.Column("sequence", sa.Integer, nullable=False, server_default="0"))
        table.add_column(sa.Column("changed_at", sa.Double, nullable=False, server_default="0"))
    db.exec_driver_sql("UPDATE meetings SET changed_at = created_at, uid = 'meeting-' || CAST(id AS VARCHAR(20))")
    with op.batch_alter_table("meetings") as table:
        for column in ("zone", "minutes", "repeat", "features", "uid", "sequence", "changed_at"):
            table.alter_column(column, server_default=None)
    op.drop_table("organizers")
    if db.dialect.name == "postgresql":
        db.exec_driver_sql("SELECT setval(pg_get_serial_sequence('accounts', 'id'), (SELECT COALESCE(MAX(id), 0) + 1 FROM accounts), FALSE)")
    _guard_audit(db)


def downgrade() -> None:
    db = op.get_bind()
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
    db.exec_driver_sql(
        "INSERT INTO organizers (id, name, key_digest, created_at) SELECT id, "
        "CASE WHEN email IS NULL AND deleted_at IS NULL THEN name ELSE substr(name, 1, 40) || ' #' || CAST(id AS VARCHAR(20)) END, "
        "CASE WHEN active THEN (SELECT digest FROM tokens WHERE account_id = accounts.id ORDER BY tokens.id LIMIT 1) END, created_at "
        "FROM accounts"
    )
    db.exec_driver_sql("UPDATE meetings SET state = 'ended' WHERE state = 'cancelled'")
    db.execute(sa.text("UPDATE meetings SET meeting_key = :none WHERE meeting_key IS NULL"), {"none": bytes(32)})
    with op.batch_alter_table("meetings") as table:
        table.drop_constraint("fk_meetings_organizer_id", type_="foreignkey")
        table.create_foreign_key("fk_meetings_organizer_id", "organizers", ["organizer_id"], ["id"])
        table.drop_constraint("ck_meetings_state", type_="check")
        table.create_check_constraint("ck_meetings_state", OLD_STATES)
        table.drop_constraint("ck_meetings_ended", type_="check")
        table.create_check_constraint("ck_meetings_ended", OLD_ENDED)
        table.alter_column("meeting_key", existing_type=sa.LargeBinary(32), nullable=False)
        for column in ("starts", "zone", "minutes", "repeat", "features", "uid", "sequence", "changed_at"):
            table.drop_column(column)
    if db.dialect.name == "postgresql":
        db.exec_driver_sql(
            "SELECT setval(pg_get_serial_sequence('organizers', 'id'), (SELECT COALESCE(MAX(id), 0) + 1 FROM organizers), FALSE)"
        )
        db.exec_driver_sql("DROP TRIGGER audit_stays ON audit")
        db.exec_driver_sql("DROP FUNCTION audit_stays()")
    for table_name in reversed(TABLES):
        op.drop_table(table_name)


def _guard_audit(db: sa.Connection) -> None:
    """Records are added, and never changed or taken away."""
    if db.dialect.name == "postgresql":
        db.exec_driver_sql("CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'audit stays'; END $$")
        db.exec_driver_sql(
            "CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_stays()"
        )
    else:
        for verb in ("UPDATE", "DELETE"):
            db.exec_driver_sql(f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit BEGIN SELECT RAISE(ABORT, 'audit stays'); END")


def _create_tables() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(254), nullable=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("password", sa.String(200), nullable=True),
        sa.Column("password_at", sa.Double(), nullable=True),
        sa.Column("totp", sa.LargeBinary(), nullable=True),
        sa.Column("totp_step", sa.BigInteger(), nullable=False),
        sa.Column("factor_required", sa.Boolean(), nullable=False),
        sa.Column("features", sa.String(1000), nullable=False),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("language", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.CheckConstraint("role IN ('organizer', 'external-admin', 'internal-admin')", name="ck_accounts_role"),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("email", name="uq_accounts_email"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("scopes", sa.String(200), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_tokens_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
    )
    op.create_index("ix_tokens_account_id", "tokens", ["account_id"], unique=False)
    op.create_table(
        "logins",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("agent", sa.String(200), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.Column("proved_at", sa.Double(), nullable=False),
        sa.Column("challenge", sa.LargeBinary(), nullable=True),
        sa.Column("totp", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_logins_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_logins"),
        sa.UniqueConstraint("digest", name="uq_logins_digest"),
    )
    op.create_index("ix_logins_account_id", "logins", ["account_id"], unique=False)
    op.create_table(
        "passkeys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("credential", sa.LargeBinary(1023), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_passkeys_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_passkeys"),
        sa.UniqueConstraint("credential", name="uq_passkeys_credential"),
    )
    op.create_index("ix_passkeys_account_id", "passkeys", ["account_id"], unique=False)
    op.create_table(
        "recovery_codes",
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_recovery_codes_account_id"),
        sa.PrimaryKeyConstraint("account_id", "digest", name="pk_recovery_codes"),
    )
    op.create_table(
        "links",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=True),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password", sa.String(200), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_links_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_links"),
        sa.UniqueConstraint("digest", name="uq_links_digest"),
    )
    op.create_index("ix_links_account_id", "links", ["account_id"], unique=False)
    op.create_index("ix_links_email", "links", ["email"], unique=False)
    op.create_table(
        "lockouts",
        sa.Column("subject", sa.LargeBinary(32), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failed_at", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_lockouts"),
    )
    op.create_table(
        "policies",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.String(4000), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_policies"),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=True),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("act", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("detail", sa.String(500), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit"),
    )
    op.create_table(
        "idempotency",
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("request", sa.LargeBinary(32), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_idempotency_account_id"),
        sa.PrimaryKeyConstraint("account_id", "key", name="pk_idempotency"),
    )
