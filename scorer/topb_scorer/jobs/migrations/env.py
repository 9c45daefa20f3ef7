"""Run the migrations over the connection of `migrations.upgrade`. alembic executes this file."""

from alembic import context

from topb_scorer.jobs.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
