# SPDX-License-Identifier: Apache-2.0
"""What a row tells of a restore fits into it, however much there is to tell."""

import json

from hotsnap_nova.conductor import actions, restorations
from hotsnap_nova.protocol import messages
from hotsnap_nova.protocol.restore import durable
from hotsnap_nova.protocol.restore import messages as restores


def test_the_faults_of_a_thousand_members_fit_into_a_column_of_64_kib():
    faults = tuple(restores.MemberFault(str(number), messages.Cause('x', 'ü' * 100))
                   for number in range(1000))
    row = durable.Restore('r', 's', (), resolution=durable.Resolution.RESUME, faults=faults)

    columns = actions.ended(actions.begun('restore', 'req')['last_action'],
                            restorations.failure(row, {}))

    assert len(json.dumps(columns['last_action'])) < 1 << 16
    assert columns['last_action']['error']['message'].endswith('…')


def test_a_restore_tells_which_hosts_it_may_come_to_name():
    share = restores.Share('s', ())
    row = durable.Restore('r', 's', (('h1', share), ('h2', share)))

    assert restorations.begun(row, 'req')['last_action']['hosts'] == ['h1', 'h2']
