"""Alembic runs this for every command; `manager.migrations` has put the connection, inside a transaction, beside the settings."""

from alembic import context

from manager.store import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
