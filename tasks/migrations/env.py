"""Alembic's entry: migrations run on the connection that the store hands over, never from a configuration file."""

from alembic import context
from sqlalchemy import text

from tasks.tables import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(20262)"))  # two starts must not migrate at once
    context.run_migrations()
