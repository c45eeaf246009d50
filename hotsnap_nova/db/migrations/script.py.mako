# SPDX-License-Identifier: Apache-2.0
"""${message}"""

import sqlalchemy as sa

from hotsnap_nova.db.migrations import once

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}
