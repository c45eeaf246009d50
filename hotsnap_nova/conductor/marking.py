# SPDX-License-Identifier: Apache-2.0
"""How a snapshot with gate ``marker`` marks: all hosts are told the same, before they prepare."""

from hotsnap_nova.conductor import requests


def of(request: requests.CreateRequest, epoch: int, verdicts: dict[str, dict]) -> dict:
    """``{'code', 'codes', 'addresses'}``, for every host; see `virt.gates.marks.Marker`."""
    codes = tuple(request.marker_dscp)
    return {'code': codes[epoch % len(codes)], 'codes': list(codes),
            'addresses': [{'mac': mac, 'ips': sorted(ips)}
                          for _, mac, ips in _addresses(request, verdicts)]}


def judge(request: requests.CreateRequest, members: dict[str, list], verdicts: dict[str, dict],
          ) -> None:
    """Add a finding for each member that nobody knows an address of: it would mark nothing.

    :param members: by host, ``{'id', 'name'}`` each
    """
    known = {member for member, _, ips in _addresses(request, verdicts) if ips}
    for host, here in members.items():
        for each in here:
            if each['id'] in known or requests.MARKER not in verdicts[host]['gates']:
                continue
            verdicts[host]['findings'].append({
                'member': each['name'], 'id': each['id'], 'device': 'network',
                'cause': 'no IP address of it is known, so that nothing sent to it could be '
                         'marked', 'remedy': 'name it with --address, or use gate hold',
                'rules_out': [requests.MARKER]})
    for verdict in verdicts.values():
        if any(requests.MARKER in each['rules_out'] for each in verdict['findings']):
            verdict['gates'] = [each for each in verdict['gates'] if each != requests.MARKER]


def _addresses(request, verdicts):
    """(member's id, MAC, IP addresses) of each NIC that a host has told of."""
    told: dict[str, set] = {}
    for mac, ips in request.addresses:
        told.setdefault(mac, set()).update(ips)
    return [(each['member'], each['mac'], {*each['ips'], *told.get(each['mac'], ())})
            for verdict in verdicts.values() for each in verdict.get('addresses', ())]
