# SPDX-License-Identifier: Apache-2.0
"""The options of group ``[hotsnap]``.

Only processes' entry points read them; everything below is handed values.
"""

import os
import socket

from oslo_config import cfg

GROUP = 'hotsnap'

OPTIONS = (
    cfg.StrOpt(
        'host', default=socket.gethostname(), sample_default='<hostname>',
        help='This host\'s name among the hosts; it must not change while snapshots exist. '
             'nova-compute has its own and does not read this one.'),
    cfg.StrOpt(
        'uri', default='qemu:///system',
        help='libvirt URI of the guests. Change it where libvirt listens elsewhere. nova-compute '
             'has its own and does not read this one.'),
    cfg.StrOpt(
        'local_uri', sample_default='<[libvirt] connection_uri>',
        help='libvirt URI by which nova-compute reaches the libvirt of its guests over a socket '
             'of this host, for example qemu:///system. Memory and disks go through open files '
             'that QEMU is handed, which no other transport carries. Set it where Nova itself '
             'reaches it over TCP. The command hotsnap has --uri.'),
    cfg.IntOpt(
        'max_pause_ms', default=100, min=1,
        help='Longest time, in ms, a member may be suspended for its own cut. A member that '
             'takes longer runs on; the snapshot fails. Raise it for guests with much memory.'),
    cfg.IntOpt(
        'max_hold_ms', default=150, min=1,
        help='Longest time, in ms, a gate stays closed: a lease, after which it opens by itself '
             'and the snapshot fails. Keep it below 200, the minimum retransmission time-out '
             'of TCP, or connections between members slow down at each snapshot.'),
    cfg.StrOpt(
        'gate', default='auto', choices=(
            ('auto', 'the best that every member can do'),
            ('hold', 'members run on, and their packets are kept back'),
            ('barrier', 'members stay suspended until all are past their cut'),
            ('marker', 'packets between members carry a mark, and all others are kept back')),
        help='What keeps packets sent after a cut from members before theirs, where nobody asks '
             'for another. Change it where all guests are the same kind and auto would vary.'),
    cfg.ListOpt(
        'marker_dscp', item_type=cfg.types.Integer(min=1, max=63), default=[3, 7, 11],
        help='DSCP code points that gate marker puts on packets between members, from a member\'s '
             'cut until its release, and takes off before they are delivered; each snapshot of a '
             'group uses the next of them. Name at least two that no guest uses, and see to it '
             'that no switch and no policy on a port sets or clears DSCP between hosts. Change '
             'it where these mean something in your network.'),
    cfg.IntOpt(
        'prepare_timeout_s', default=60, min=1,
        help='Seconds in which every member must be prepared. Raise it where disks flush '
             'slowly.'),
    cfg.IntOpt(
        'save_timeout_s', default=3600, min=1,
        help='Seconds in which every member must be saved, and those of a restore read and put in '
             'place. Raise it for large members or a slow store.'),
    cfg.IntOpt(
        'silence_timeout_s', default=120, min=10,
        help='Seconds a host may be silent while it saves or restores; then it is taken for dead, '
             'and the snapshot fails or the restore is undone, so that members on other hosts are '
             'not kept for nothing. Raise it where a restart of nova-compute or of the message '
             'broker takes longer.'),
    cfg.IntOpt(
        'restore_keep_hours', default=24, min=0,
        help='Hours for which the disks replaced by a restore are kept beside the new ones, for '
             'an undo by hand. 0: not at all. Lower it where space is short.'),
    cfg.IntOpt(
        'lease_s', default=30, min=5,
        help='Seconds a coordinator owns a snapshot without renewing; after that another takes '
             'over. Raise it where the database or the hosts are often overloaded.'),
    cfg.IntOpt(
        'max_snapshots_per_project', default=10, min=-1,
        help='Snapshots of server groups a project may have; those in error are not counted. '
             '-1: any number. Raise it where the store has room.'),
    cfg.IntOpt(
        'max_snapshots_per_group', default=5, min=-1,
        help='Snapshots of one server group, likewise.'),
    cfg.IntOpt(
        'max_gib_per_project', default=-1, min=-1,
        help='GiB that the snapshots of a project may take in stores, together with disks that '
             'its restores replaced and that hosts still keep. A snapshot is begun below it, and '
             'counts as soon as hosts tell what they copy. -1: any number. Set it where the '
             'store is small.'),
    cfg.IntOpt(
        'max_failed_per_project', default=100, min=-1,
        help='Snapshots in error that a project has in the database; with the next snapshot the '
             'oldest beyond that go, of which nothing is left but their row. -1: any number. '
             'Raise it to look further back.'),
    cfg.IntOpt(
        'service_interval_s', default=10, min=1,
        help='Seconds between a coordinator\'s signs of life, and between its looks for what dead '
             'ones left. One silent for three of them is shown as down. Raise it where the '
             'database is busy.'),
    cfg.IntOpt(
        'host_interval_s', default=60, min=5,
        help='Seconds between questions whether a host answers. What a host owes that was away is '
             'asked of it then. Raise it with thousands of hosts.'),
    cfg.StrOpt(
        'compute_rpc_version',
        help='Newest version of messages sent to hosts, for example 1.0. Default: each host is '
             'asked for its own. Set it while hosts are upgraded one after the other, if that '
             'fails.'),
    cfg.BoolOpt(
        'compress', default=False,
        help='Compress memory with zstd. Change it where the store is slower than the '
             'processors.'),
    cfg.IntOpt(
        'io_limit_mib_s', default=0, min=0,
        help='MiB a second that a host copies of disks for one snapshot or restore, and reads to '
             'compute digests, beside what guests themselves make necessary. Memory that is '
             'saved is not limited, for its guest waits; what a restore unpacks of it is. 0: no '
             'limit. Set it where guests feel that others are saved or verified, and '
             'save_timeout_s so that there is time. A restore is bound by both, too: it copies '
             'and verifies no faster, and has no longer.'),
    cfg.BoolOpt(
        'direct_io', default=False,
        help='Copy disks and compute digests past the page cache, whose content guests and others '
             'have use for; memory that a restore unpacks is taken out of it again. libvirt reads '
             'memory through it all the same. The file systems of the store and of disks must '
             'know O_DIRECT. Change it where hosts have little memory to spare.'),
    cfg.IntOpt(
        'reserve_mib', default=64, min=0,
        help='MiB that are to stay free in the store when a snapshot has been taken, and on the '
             'file systems of disks when a restore has put others beside them. Who would need '
             'them is refused beforehand, memory and disks of all members on the host counted '
             'together. Raise it where others write there at the same time, guests with sparse '
             'disks among them.'),
    cfg.BoolOpt(
        'trial_load', default=True,
        help='Before a restore stops anything, start each member a second time beside itself for '
             'a moment: paused, without network, from the memory and on the disks of the cut. '
             'What the host\'s QEMU, firmware or libvirt no longer takes is refused while the '
             'group runs on. One member at a time takes its memory once more on the host and '
             'beside its disks, and the time to load it; where there is no room, or its memory '
             'is in huge pages or bound to NUMA nodes, it is left out, and the log says so. Unset '
             'it where restores have to be quick.'),
    cfg.IntOpt(
        'trial_reserve_mib', default=512, min=0,
        help='MiB of the host\'s memory that are to stay free while a member is loaded on trial. '
             'Raise it where other guests grow or start at any time.'),
    cfg.StrOpt(
        'store', default='local',
        help='Entry point in hotsnap.store of the store that keeps snapshots.'),
    cfg.StrOpt(
        'store_path', default='/var/lib/hotsnap/store',
        help='Folder of the local store. Put it on a file system with room for the memory and '
             'disks of whole groups.'),
    cfg.StrOpt(
        'state_path', default='/var/lib/hotsnap',
        help='Folder for journals and locks; it must survive a restart of the host.'),
    cfg.StrOpt(
        'lock_path', default=os.path.join(
            os.environ.get('XDG_RUNTIME_DIR', '/run') if os.geteuid() else '/run', 'hotsnap'),
        sample_default='/run/hotsnap',
        help='Folder for locks of guests. All who snapshot guests of one libvirt must share it, '
             'whatever their state_path; it need not survive a restart of the host.'),
    cfg.IntOpt(
        'compute_threads', default=16, min=4,
        help='Requests of coordinators a nova-compute serves at once, and as many again that '
             'cannot wait for those. Raise it where many groups are snapshotted at the same '
             'time.'),
    cfg.BoolOpt(
        'virtio_without_vhost', default=False,
        help='Have QEMU itself serve virtio NICs without multiqueue, and not vhost, so that gate '
             'hold is possible for KVM guests where the host kernel cannot keep their packets '
             'back, at some cost of throughput. nova-compute reads it; '
             'instances take it on at their next hard reboot.'),
    cfg.StrOpt(
        'database_connection', secret=True,
        help='SQLAlchemy URL of the coordinator\'s database. Default: SQLite in state_path. '
             'nova-hotsnap-conductor must be told, and several need a server they share.'),
)


def register(conf) -> None:
    """Make ``conf.hotsnap`` answer; repeating it is harmless."""
    conf.register_opts(OPTIONS, group=GROUP)


def list_opts() -> list:
    """The options for oslo-config-generator."""
    return [(GROUP, list(OPTIONS))]
