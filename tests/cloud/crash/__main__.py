# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.cloud.crash``: everything killed at every step of a restore in a cloud."""

import sys

from tests.cloud.crash.site import Site
from tests.cloud.processes import CloudError
from tests.crash import campaign

if __name__ == '__main__':
    sys.exit(campaign.main('tests.cloud.crash', __doc__, Site, 'crash-cloud', CloudError))
