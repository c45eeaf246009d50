# SPDX-License-Identifier: Apache-2.0
"""How packets go between guests, and what becomes of gates that nobody opens."""

from dataclasses import replace

from hotsnap_nova.protocol import commands as do
from hotsnap_nova.protocol import cut
from hotsnap_nova.protocol.cut import Deliver, Emit, Packet
from hotsnap_nova.protocol.messages import Gate, Member
from tests.explore.hostmodel import Violation


class TrafficRules:
    def _guard(self, world, name):
        for guest in world.host(name).guests:
            guest, effects = self.build.engine.guard(guest)
            world = self.route(world.with_host(world.host(name).with_guest(guest)), effects)
        return world

    def _lapse(self, world, name):
        """The leases of this host's gates end, and with them what its clock shows."""
        world, opened = world.spend("lapses"), []
        for guest in world.host(name).guests:
            if not guest.leased and not guest.path.keeping:
                continue
            if guest.path.gate is Gate.BARRIER:
                guest, effects = self.build.engine.guard(guest)
            else:
                path, effects = guest.path.lapse()
                guest = replace(guest, path=path, leased=False)
            end = guest.closed_ns + cut.NS_PER_MS if guest.path.closed else 0
            host = world.host(name).with_guest(guest)
            world = world.with_host(replace(host, now=max(host.now, end)))
            world = self.route(world, effects)
            opened.append(guest)
        return self._leak(world, opened)

    def _packet(self, world, sender, receiver, markable):
        """A packet crosses at once, unless it is held; it may ask the receiver for a cut first."""
        _, effects = sender.path.send(Packet(sender.name, receiver.name, 0, markable))
        return self.route(world, effects, at_once=True)

    def _forge(self, world, name, member):
        """Somebody who is no member, or is and is not past its cut, sends a mark."""
        armed = world.host(name).guest(member).path.armed
        packet = Packet("nobody", member, 0, mark=cut.mark_of(armed))
        return self.arrive(world.spend("forgeries"), packet)

    def _flood(self, world, name, member):
        """A guest sends, or is sent, more than its gate has room for."""
        guest = world.host(name).guest(member)
        full = replace(guest.path, room=0)
        packet = Packet(member, member, 0, markable=False)
        path, _ = full.arrive(packet) if full.keeping else full.send(packet)
        guest = replace(guest, path=replace(path, room=guest.path.room))
        return world.spend("floods").with_host(world.host(name).with_guest(guest))

    def route(self, world, effects, at_once=False):
        for effect in effects:
            match effect:
                case Emit(packet=packet) if at_once:
                    world = self.arrive(world, packet)
                case Emit(packet=packet) if packet.number:
                    world = replace(world, packets=(*world.packets, packet))
                case Deliver(packet=packet):
                    world = self._receive(world, packet)
        return world

    def arrive(self, world, packet):
        """Where it asks for a cut, that is taken later, or never: `_trigger`."""
        host = _host_of(world, packet.target)
        guest = host.guest(packet.target)
        path, effects = guest.path.arrive(packet)
        world = world.with_host(host.with_guest(replace(guest, path=path)))
        return self.route(world, effects)

    def _trigger(self, world, name, member, how, units):
        """A member is cut because of a packet, without its machine; or that fails, or all dies."""
        guest = world.host(name).guest(member)
        if how == "fail":
            world = world.spend("failures")
            path, effects = guest.path.fail()
            guest = replace(guest, path=path)
            return self.route(world.with_host(world.host(name).with_guest(guest)), effects)
        work = dict(world.row.hosts)[name]
        alone = replace(work, members=(Member(member),))
        command = do.RecordMembers(world.row.snapshot, world.row.epoch, alone)
        world = self._work(world, name, command, units, "ok")
        return world if how == "ok" else self._crash(world, name)

    def _receive(self, world, packet):
        host = _host_of(world, packet.target)
        guest = host.guest(packet.target)
        if guest.path.epoch < packet.epoch:
            guest = replace(guest, orphan=True)
        if packet.mark and guest.residue:  # of a host that gave up nobody promises that
            raise Violation(f"{guest.name} sees the mark of {packet.source}")
        if packet.number:
            received = dict(guest.received)
            received[packet.source] = max(received.get(packet.source, 0), packet.number)
            guest = replace(guest, received=tuple(sorted(received.items())))
        return world.with_host(host.with_guest(guest))

    def _leak(self, world, opened=()):
        """The worst case: who is past its cut and may send, at once sends to all before theirs.

        With markers it is an action of its own, because it changes the receiver.
        """
        if world.row.hosts[0][1].gate is Gate.MARKER:
            return world
        snapshot = world.row.snapshot
        guests = [guest for host in world.hosts for guest in host.guests]
        if not opened and not any(_is_taken(g, snapshot) and g.leaks for g in guests):
            return world
        hosts = tuple(
            replace(host, guests=tuple(
                g if _is_taken(g, snapshot) or g.path.suspended else replace(g, orphan=True)
                for g in host.guests
            ))
            for host in world.hosts
        )  # fmt: skip
        return replace(world, hosts=hosts)


def _is_taken(guest, snapshot):
    return guest.taken is not None and guest.taken.snapshot == snapshot


def _host_of(world, member):
    return next(h for h in world.hosts if any(g.name == member for g in h.guests))
