# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.crash``: everything killed at every step, and the table of what came of it."""

import sys

from tests.crash import campaign
from tests.crash.site import Site

if __name__ == '__main__':
    sys.exit(campaign.main('tests.crash', __doc__, Site, 'crash'))
