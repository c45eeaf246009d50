# SPDX-License-Identifier: Apache-2.0
"""An engine without QEMU: guests are rows of a JSON file, so that they outlive our processes.

It keeps the real engine's promises (virt/host.py) and no others: calls may be
repeated, a discard is safe in any state and from any thread, whatever is left
in a guest is seen by `survey` of a fresh process.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
import uuid

import blake3

from hotsnap_nova import exception
from hotsnap_nova.virt import records
from tests.fakes import restorer

NAMESPACE = uuid.UUID('6ba7b812-9dad-11d1-80b4-00c04fd430c8')


class Died(SystemExit):
    """Ends a thread as kill -9 ends a process: no handler of ours may catch it."""


class _Nowhere:
    """Instead of a world, once the process is dead."""

    def __getattr__(self, name):
        raise Died


class World:
    """Guests, in a file that several engines and processes share."""

    def __init__(self, path):
        self.path = str(path)
        if not os.path.exists(self.path):
            with open(self.path, 'w') as file:
                json.dump({'guests': {}}, file)

    @contextlib.contextmanager
    def open(self):
        """The guests by name; changes are kept at the end of the block."""
        with open(self.path, 'r+') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            content = json.load(file)
            yield content['guests']
            for guest in content['guests'].values():
                _settle(guest)
            file.seek(0)
            json.dump(content, file)
            file.truncate()

    def add(self, name, state='running', gates=records.GATES, memory_bytes=1 << 20,
            uuid_=None, says=(), ips=()):
        """
        :param says: device, cause, remedy and what is ruled out, of each further finding
        :param ips: its NIC's; the MAC is made of the name's first letter
        """
        with self.open() as guests:
            guests[name] = {
                'id': uuid_ or str(uuid.uuid5(NAMESPACE, name)), 'name': name, 'state': state,
                'gates': list(gates), 'says': says, 'mac': f'52:54:00:00:00:{ord(name[0]):02x}',
                'ips': list(ips), 'memory_bytes': memory_bytes, 'stopped_by': '',
                'closed_by': '', 'left': [], 'stops': 0, 'off_reason': '', 'starts': 0,
                'files': {'disk': 1}, 'inodes': {'1': {'of': 'own', 'written': False}},
                'defined': True, 'named': 'disk',
                'open': 0, 'loaded': False, 'booted': False,
                'stopped': {}, 'loading': [], 'resumed': []}
        return self.spec(name)

    def spec(self, name):
        guest = self.guest(name)
        return records.MemberSpec(guest['id'], guest['name'])

    def guest(self, name):
        with self.open() as guests:
            return dict(guests[name])

    def boot(self, name):
        """Somebody starts a guest from its disk; nothing happens to one that is active."""
        with self.open() as guests:
            if guests[name]['state'] not in restorer.ACTIVE:
                guests[name].update(state='running', open=0)

    def kill(self, *names):
        """Their QEMUs die, as when memory is short or a host has no power; all: every guest."""
        with self.open() as guests:
            for name in names or tuple(guests):
                guests[name].update(state='shut off', off_reason='crashed')

    def misplaced(self):
        """Names of guests whose QEMU writes to a disk that their path does not name."""
        with self.open() as guests:
            return sorted(name for name, guest in guests.items()
                          if guest['open'] not in (0, guest['files'][guest['named']]))

    def untouched(self):
        """Whether every guest runs with its gate open and nothing of ours in it."""
        with self.open() as guests:
            return all(guest['state'] == 'running' and not guest['left']
                       and not guest['closed_by'] and not guest['stopped_by']
                       and guest['open'] == guest['files']['disk']
                       for guest in guests.values())


def _settle(guest):
    """QEMU opens what its path names when it starts, and lets go of it when it ends.

    ``disk`` and ``old_disk`` say whose content is at the path and in what was replaced; ``loaded``
    and ``booted`` are libvirt's reasons for why it stands or runs.
    """
    files, inodes = guest['files'], guest['inodes']
    if guest['state'] not in restorer.ACTIVE:
        guest.update(open=0, loaded=False)
    elif not guest['open']:
        guest.update(open=files[guest['named']], loaded=False, booted=True,
                     starts=guest['starts'] + 1, off_reason='')
    if guest['state'] == 'running':
        guest['loaded'] = False
        inodes[str(guest['open'])]['written'] = True
    else:
        guest['booted'] = False
    aside = next((number for name, number in files.items()
                  if name.startswith(('old-', 'kept-'))), None)
    guest.update(disk=inodes[str(files['disk'])]['of'],
                 old_disk=inodes[str(aside)]['of'] if aside else '')


def _defined(guests):
    return [guest for guest in guests.values() if guest['defined']]


class Engine(restorer.Restorer):
    """See the module's words.

    :ivar faults: what happens at the start of a method, by its name: an error
        to raise, or a callable that gets the method's first argument
    :ivar calls: names of methods, in order
    :ivar discarded: (snapshot id, names of members) of each `discard`
    :ivar save_s: how long a member's save takes
    :ivar kept: paths of disks that a restore replaced; all have expired
    """

    def __init__(self, world, pause_ms=5.0):
        self.world = world
        self.faults = {}
        self.warns = {}
        self.calls = []
        self.discarded = []
        self.pause_ms = pause_ms
        self.save_s = 0.0
        self.kept = ()
        self._closed_ns = {}
        self._ended = set()
        self._event = threading.Condition()

    def die(self):
        """Touch no guest any more: whoever is in the middle of something ends there."""
        self.world = _Nowhere()

    # -- questions -----------------------------------------------------------------------------

    def find(self, names):
        self._begin('find', names)
        with self.world.open() as guests:
            found = []
            for name in names:
                guest = next((each for each in _defined(guests) if name in (each['name'],
                                                                            each['id'])), None)
                if guest is None:
                    raise exception.MemberNotFound(member=name)
                found.append(records.MemberSpec(guest['id'], guest['name']))
            return tuple(found)

    def check(self, members, gate='auto', free_bytes=None):
        self._begin('check', members)
        gates, findings = list(records.GATES), []
        with self._guests(members) as guests:
            for spec, guest in zip(members, guests, strict=True):
                if guest['state'] != 'running':
                    raise exception.GuestNotRunning(member=spec, state=guest['state'])
                missing = tuple(each for each in records.GATES if each not in guest['gates'])
                if missing:
                    findings.append(records.Finding(
                        spec, 'net0', 'vhost', 'use driver qemu',
                        (records.SNAPSHOT,) if len(missing) == len(records.GATES) else missing))
                findings += [records.Finding(spec, *each) for each in guest['says']]
                gates = [each for each in gates if each in guest['gates']]
        if gate == records.NO_GATE:
            gates.append(gate)
        addresses = ()
        if gate == records.MARKER:
            gates = [each for each in (gate, *gates)
                     if not any(each in finding.rules_out for finding in findings)]
            addresses = tuple(records.Address(guest['id'], guest['mac'], tuple(guest['ips']))
                              for guest in guests)
        return records.Verdict(tuple(gates), tuple(findings), addresses)

    def survey(self):
        self._begin('survey', None)
        with self.world.open() as guests:
            return tuple(records.Leftover(guest['id'], guest['name'], ','.join(guest['left']),
                                          ('everything',))
                         for guest in guests.values() if guest['left'])

    @staticmethod
    def tag_of(snapshot_id):
        return hashlib.blake2s(snapshot_id.encode(), digest_size=3).hexdigest()

    # -- a snapshot ----------------------------------------------------------------------------

    def prepare(self, work):
        self._begin('prepare', work)
        tag = self.tag_of(work.snapshot_id)
        facts = []
        with self._guests(work.members) as guests:
            for spec, guest in zip(work.members, guests, strict=True):
                if guest['state'] != 'running':
                    raise exception.GuestNotRunning(member=spec, state=guest['state'])
                guest['left'] = sorted({*guest['left'], tag})
                os.makedirs(f'{work.folder}/{guest["id"]}', mode=0o700, exist_ok=True)
                facts.append(records.MemberFacts(
                    guest['id'], guest['name'], 'pc-q35-10.0', 'qemu64', '10.0.2', '11.3.0',
                    guest['memory_bytes'], 1,
                    ({'target': 'vda', 'file': 'vda.qcow2', 'format': 'qcow2',
                      'size_bytes': 4096},)))
        return tuple(facts)

    def record(self, work):
        self._begin('record', work)
        cuts = []
        for index, member in enumerate(work.members):
            if work.record_delays_s:
                time.sleep(work.record_delays_s[index])
            with self._guests([member]) as (guest,):
                if guest['state'] != 'running':
                    raise exception.GuestNotRunning(member=member, state=guest['state'])
                closed_ns = self._closed_ns[work.snapshot_id, member.id] = time.monotonic_ns()
                guest['stops'] += 1
                if work.gate != records.NO_GATE:
                    guest['closed_by'] = self.tag_of(work.snapshot_id)
                if work.gate == 'barrier':
                    guest['state'] = 'paused'
                    guest['stopped_by'] = self.tag_of(work.snapshot_id)
            self._begin('record_member', member)
            cuts.append(records.CutRecord(
                member.id, work.epoch, time.monotonic_ns(), time.time_ns(), closed_ns,
                self.pause_ms, 1, 0 if work.gate == 'barrier' else 1, {'stop': 1.0}))
        return tuple(cuts)

    def release(self, work):
        self._begin('release', work)
        self._open(work.snapshot_id, work.members)
        held = [(time.monotonic_ns() - self._closed_ns[work.snapshot_id, member.id]) / 1e6
                for member in work.members]
        gated = work.gate != records.NO_GATE
        return tuple(
            records.ReleaseRecord(
                member.id, hold_ms if gated else 0.0, hold_ms if work.gate == 'barrier' else 0.0,
                gated and hold_ms >= work.max_hold_ms, 1, 1)
            for member, hold_ms in zip(work.members, held, strict=True))

    def save(self, work, on_progress):
        self._begin('save', work)
        saved = []
        for member in work.members:
            total = 1000
            ends = time.monotonic() + self.save_s
            while (left_s := ends - time.monotonic()) > 0:
                on_progress(records.Progress(
                    member.id, int(total * (1 - left_s / self.save_s)), total))
                with self._event:
                    if work.snapshot_id not in self._ended:
                        self._event.wait(min(left_s, 0.05))
                    if work.snapshot_id in self._ended:
                        raise exception.Aborted(who='a discard')
            memory = f'memory of {member.name}'.encode() * 10
            digest = blake3.blake3(memory).hexdigest()
            content = {'memory.save': memory, 'vda.qcow2': b'disk', 'domain.xml': b'<domain/>'}
            for name, data in content.items():
                with open(f'{work.folder}/{member.id}/{name}', 'wb') as file:
                    os.fchmod(file.fileno(), 0o600)
                    file.write(data)
            on_progress(records.Progress(member.id, total, total))
            saved.append(records.SavedMember(
                member.id, tuple(
                    records.SavedFile(name, len(data), digest if name == 'memory.save' else '')
                    for name, data in content.items()), len(memory), 4))
        return tuple(saved)

    def finish(self, work):
        self._begin('finish', work)
        self._clean(work.snapshot_id, work.members)

    def discard(self, snapshot_id, members):
        self._begin('discard', snapshot_id)
        self.discarded.append((snapshot_id, tuple(member.name for member in members)))
        with self._event:
            self._ended.add(snapshot_id)
            self._event.notify_all()
        self._clean(snapshot_id, members)

    def clean(self, members):
        self._begin('clean', members)
        with self._guests(members) as guests:
            for guest in guests:
                if guest['stopped_by']:
                    guest['state'] = 'running'
                guest.update(left=[], closed_by='', stopped_by='')

    def drop_expired(self, on_record=()):
        self.spared = on_record
        dropped, self.kept = self.kept, ()
        return dropped

    def close(self):
        self.calls.append('close')

    def export(self, folder, facts, destination):
        self._begin('export', folder)
        paths = {'xml': f'{destination}/{facts["name"]}.xml',
                 'memory': f'{destination}/{facts["name"]}.save'}
        for path in paths.values():
            with open(path, 'x') as file:
                file.write(folder)
        return paths

    # -- inside --------------------------------------------------------------------------------

    def _begin(self, method, about):
        self.calls.append(method)
        fault = self.faults.get(method)
        if isinstance(fault, Exception):
            raise fault
        if fault:
            fault(about)
        if isinstance(self.world, _Nowhere):
            raise Died

    @contextlib.contextmanager
    def _guests(self, members):
        with self.world.open() as guests:
            by_id = {guest['id']: guest for guest in _defined(guests)}
            absent = [member for member in members if member.id not in by_id]
            if absent:
                raise exception.MemberNotFound(member=absent[0])
            yield [by_id[member.id] for member in members]

    def _open(self, snapshot_id, members):
        tag = self.tag_of(snapshot_id)
        with self._guests(members) as guests:
            for guest in guests:
                if guest['closed_by'] == tag:
                    guest['closed_by'] = ''
                if guest['stopped_by'] == tag:
                    guest.update(state='running', stopped_by='')

    def _clean(self, snapshot_id, members):
        self._open(snapshot_id, members)
        tag = self.tag_of(snapshot_id)
        with self._guests(members) as guests:
            for guest in guests:
                guest['left'] = [each for each in guest['left'] if each != tag]
