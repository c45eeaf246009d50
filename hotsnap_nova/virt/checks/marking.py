# SPDX-License-Identifier: Apache-2.0
"""Whether a guest's packets can be marked, looked at where gate ``marker`` is asked for."""

from hotsnap_nova.virt import definitions, records
from hotsnap_nova.virt.checks import subject
from hotsnap_nova.virt.gates import reach
from hotsnap_nova.virt.memory import hugepages


def nics(asked: subject.Subject):
    process = hugepages.process_of(asked.guest.uuid)
    for index, nic in enumerate(asked.parsed.nics):
        if told := reach.missing(nic.target, process, both_ways=True):
            cause, remedy = told
            yield (nic.target or nic.alias or f'net{index}',
                   f'the host kernel marks nothing there: {cause}', f'{remedy}; or use gate hold',
                   (records.MARKER,))


def policies(members: list[subject.Subject], owner: definitions.Definitions | None):
    """A finding for each NIC whose marks the network would write over.

    :raises HotsnapError: who defines them does not say just now
    """
    for asked in members if owner else ():
        names = {nic.mac: nic.target or nic.alias for nic in asked.parsed.nics}
        for mac, policy in owner.dscp_policies(asked.guest.uuid):
            yield records.Finding(
                asked.guest.spec, names.get(mac) or mac,
                f'policy {policy} sets the DSCP of its packets, where marks would be',
                'take its rule for DSCP off the port or its network, or use gate hold',
                (records.MARKER,))


def addresses(members: list[subject.Subject], owner: definitions.Definitions | None,
              ) -> tuple[records.Address, ...]:
    """What these guests' NICs are sent packets by, as far as it is known here.

    :raises HotsnapError: who defines them does not say just now
    """
    found = []
    for asked in members:
        told = owner.addresses(asked.guest.uuid) if owner else {}
        found += [records.Address(asked.guest.uuid, nic.mac, (*nic.ips, *told.get(nic.mac, ())))
                  for nic in asked.parsed.nics if nic.mac]
    return tuple(found)


RULES = (nics,)
