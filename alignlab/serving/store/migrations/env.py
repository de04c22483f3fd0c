"""Run the migrations on the connection that `alignlab.serving.store.database` passes."""

from alembic import context

from alignlab.serving.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
