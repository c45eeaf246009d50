# SPDX-License-Identifier: Apache-2.0
"""What alembic runs. The connection comes from ``db.migration``, in a transaction of its own."""

from alembic import context

from hotsnap_nova.db import models

context.configure(
    connection=context.config.attributes['connection'],
    target_metadata=models.Base.metadata,
    # SQLite changes a column by making the table anew.
    render_as_batch=True,
)
context.run_migrations()
