"""Run by Alembic: migrates the connection that `catalog.migrations` put into its settings."""

from alembic import context

from catalog.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table in place: batch mode makes a new one and copies.
    render_as_batch=True,
)
context.run_migrations()
