# SPDX-License-Identifier: Apache-2.0
"""Our programs at a network device, beside whatever others have there.

They are filters of a ``clsact`` qdisc, or at the ingress of an ``ingress`` qdisc, as Neutron's and
libvirt's own limits of bandwidth are. A device has one such qdisc: found, it is shared. Ours are
known by their name, and whether the qdisc is ours too by their handle, so that any later process
takes out what is ours, all of it, and nothing else.
"""

import contextlib
import dataclasses
import errno
import socket

import pyroute2
from pyroute2.netlink import exceptions

from hotsnap_nova.virt.gates import bpf

NAME = 'hotsnap:'
#: Before all others: who comes first decides, and a packet let through elsewhere is a leak.
_PRIORITY = 1
#: The filter's handle: 'hs', and in the last bit whether the qdisc came with it.
_SHARED, _OWN = 0x68730, 0x68731
_ALL_PROTOCOLS = 0x0003
_QDISC = 0xffff0000
_PARENTS = {True: 0xfffffff2, False: 0xfffffff3}
#: As IFLA_TUN_TYPE has it.
_TAP = 2
#: What tcx calls the same two places, from Linux 6.6 on; there programs run before filters.
_TCX = {True: 46, False: 47}


@dataclasses.dataclass(frozen=True)
class Hook:
    """A filter of ours. ``ingress`` tells where; ``name`` is without our prefix."""

    ifindex: int
    ingress: bool
    name: str
    handle: int

    @property
    def brought_qdisc(self) -> bool:
        """Whether the qdisc that it is in came with it."""
        return self.handle == _OWN


def by_ingress(ifindex: int) -> bool:
    """Whether a guest's packets come into the host by this device's ingress, or by its egress.

    By ingress with a tap, by egress with a macvtap. It is asked of the device, for a domain's XML
    may name a macvtap that others made as it names a tap.

    :raises bpf.GateUnavailable: it is neither
    """
    with _netlink() as ip:
        for link in ip.get_links(ifindex):
            kind = link.get_nested('IFLA_LINKINFO', 'IFLA_INFO_KIND')
            if kind == 'macvtap':
                return False
            if kind == 'tun' and link.get_nested(
                    'IFLA_LINKINFO', 'IFLA_INFO_DATA', 'IFLA_TUN_TYPE') == _TAP:
                return True
    raise bpf.GateUnavailable(reason=f'device {ifindex} is neither a tap nor a macvtap')


def attach(ifindex: int, ingress: bool, program: int, name: str) -> None:
    """Put a program where it sees each packet before any other filter does.

    :param program: its descriptor
    :param name: what :func:`leftovers` will call it
    :raises bpf.GateUnavailable: somebody is before us, or the privilege is missing
    """
    with _netlink() as ip:
        if reason := _obstacle(ip, ifindex, ingress):
            raise bpf.GateUnavailable(reason=f'device {ifindex}: {reason}')
        kind = _qdisc(ip, ifindex)
        if kind is None:
            ip.tc('add', 'clsact', ifindex)
        try:
            # An ingress qdisc's filters are shown by the parent that the latest named.
            parent = _QDISC if kind == 'ingress' else _PARENTS[ingress]
            ip.tc('add-filter', 'bpf', ifindex, _OWN if kind is None else _SHARED, fd=program,
                  name=f'{NAME}{name}', parent=parent, prio=_PRIORITY, protocol=_ALL_PROTOCOLS,
                  direct_action=True)
        except BaseException:
            if kind is None:
                _drop_empty(ip, ifindex)
            raise


def obstacle(ifindex: int, ingress: bool) -> str | None:
    """Why :func:`attach` would refuse this place; None where nothing of others is in the way.

    Nothing is changed. It takes no privilege but for programs of others (tcx): without it they
    are not seen.

    :raises bpf.GateUnavailable: nobody can say
    """
    with _netlink() as ip:
        return _obstacle(ip, ifindex, ingress)


def _obstacle(ip, ifindex, ingress):
    """Of one priority, the newest filter of a kind and protocol runs first; other kinds bar it."""
    if bpf.attached(ifindex, _TCX[ingress]):
        return 'it has programs of others (tcx) that run before ours'
    kind = _qdisc(ip, ifindex)
    if kind == 'ingress' and not ingress:
        return 'it has an ingress qdisc, beside which there is no egress'
    ours = 'bpf', socket.htons(_ALL_PROTOCOLS)
    for found in ip.get_filters(ifindex, parent=_PARENTS[ingress]) if kind else ():
        priority, protocol = divmod(found['info'], 1 << 16)
        if priority == _PRIORITY and (found.get_attr('TCA_KIND'), protocol) != ours:
            return (f'it has a {found.get_attr("TCA_KIND")} filter of priority {_PRIORITY}; '
                    'give that another')
    return None


def displaced(places: tuple[tuple[int, bool], ...], name: str) -> tuple[int, ...]:
    """Of these devices, with the place at each, those where it is no longer ours that runs first.

    Whoever deletes a filter or its qdisc, or adds another, need not ask. A program that is there
    was there all the time: nobody else could put it back.

    :param name: as given to :func:`attach`
    :raises bpf.GateUnavailable: nobody can say
    """
    with _netlink() as ip:
        return tuple(ifindex for ifindex, ingress in places
                     if not _is_first(ip, ifindex, ingress, name))


def _is_first(ip, ifindex, ingress, name):
    if bpf.attached(ifindex, _TCX[ingress]):
        return False
    with contextlib.suppress(exceptions.NetlinkError):    # it is gone
        for each in ip.get_filters(ifindex, parent=_PARENTS[ingress]):
            # Each priority is shown once by itself, before its filters; ours has none but bpf.
            itself = each.get_attr('TCA_KIND') == 'bpf' and not each['handle']
            if not each.get_attr('TCA_CHAIN') and not itself:
                return any(found == f'{NAME}{name}' for _, found in _named([each]))
    return False


def leftovers(ifindex: int | None = None) -> tuple[Hook, ...]:
    """Our filters, whatever process put them there.

    :param ifindex: at this device; None: at all of this network namespace
    """
    found = []
    with _netlink() as ip:
        devices = [ifindex] if ifindex is not None else [each['index'] for each in ip.get_links()]
        for device in devices:
            for ingress, parent in _PARENTS.items():
                with contextlib.suppress(exceptions.NetlinkError):    # it is gone
                    found += [
                        Hook(device, ingress, name.removeprefix(NAME), each['handle'])
                        for each, name in _named(ip.get_filters(device, parent=parent))]
    return tuple(found)


def _named(filters):
    for each in filters:
        # pyroute2 does not know every kind; an unknown one's options are text.
        if each.get_attr('TCA_KIND') != 'bpf':
            continue
        options = each.get_attr('TCA_OPTIONS')
        name = (options.get_attr('TCA_BPF_NAME') if options else None) or ''
        if name.startswith(NAME) and each['handle'] in (_SHARED, _OWN):
            yield each, name


def detach(hook: Hook) -> None:
    """Take it out, and the qdisc that came with it unless others use that now; repeatable."""
    with _netlink() as ip:
        with _gone():
            ip.tc('del-filter', 'bpf', hook.ifindex, hook.handle, parent=_PARENTS[hook.ingress],
                  prio=_PRIORITY, protocol=_ALL_PROTOCOLS)
        if hook.brought_qdisc:
            with _gone():
                _drop_empty(ip, hook.ifindex)


def _drop_empty(ip, ifindex):
    if not any(list(ip.get_filters(ifindex, parent=parent)) for parent in _PARENTS.values()):
        ip.tc('del', 'clsact', ifindex, _QDISC)


def _qdisc(ip, ifindex):
    for each in ip.get_qdiscs(ifindex):
        if each['handle'] == _QDISC:
            return each.get_attr('TCA_KIND')
    return None


@contextlib.contextmanager
def _gone():
    """What is to be removed may be gone, or its device."""
    try:
        yield
    except exceptions.NetlinkError as exc:
        if exc.code not in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
            raise bpf.GateUnavailable(reason=f'taking it out: {exc}') from exc


@contextlib.contextmanager
def _netlink():
    """Yield the kernel's routing socket.

    :raises bpf.GateUnavailable: where it refuses
    """
    try:
        with pyroute2.IPRoute() as ip:
            yield ip
    except (exceptions.NetlinkError, OSError) as exc:
        raise bpf.GateUnavailable(reason=f'traffic control: {exc}') from exc
