# SPDX-License-Identifier: Apache-2.0
"""``compute_driver = hotsnap.HotSnapLibvirtDriver``: Nova's libvirt driver, and group snapshots.

All that Nova does stays Nova's. This class says when the participant comes and
goes, and which of Nova's methods would meet it: most of them never do, for
Nova's API refuses them while an instance has a task. They are guarded all the
same, because an administrator can reset that task.
"""

import functools
import inspect

from nova import conf as nova_conf
from nova import exception
from nova.compute import power_state
from nova.virt.libvirt import driver as libvirt_driver
from oslo_log import log as logging

from hotsnap_nova import conf as our_conf
from hotsnap_nova.nova import definitions, instances, participation, vif

LOG = logging.getLogger(__name__)
CONF = nova_conf.CONF
our_conf.register(CONF)

TRAIT = 'CUSTOM_HOTSNAP'

#: These end or move the guest, or make its disks anew: a snapshot under way is given up first.
WITHDRAWING = (
    'destroy', 'cleanup', 'power_off', 'power_on', 'reboot', 'pause', 'suspend', 'resume',
    'rescue', 'unrescue', 'live_migration', 'migrate_disk_and_power_off', 'confirm_migration',
    'finish_revert_migration')
#: These change a guest that goes on running, or look at its disks: refused for so long.
REFUSED = (
    'check_can_live_migrate_source', 'snapshot', 'quiesce', 'attach_volume', 'detach_volume',
    'extend_volume', 'swap_volume', 'volume_snapshot_create', 'volume_snapshot_delete',
    'attach_interface', 'detach_interface')


class HotSnapLibvirtDriver(libvirt_driver.LibvirtDriver):
    """See the module's words."""

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi, read_only)
        self._participation = participation.Participation()
        if CONF.hotsnap.virtio_without_vhost:
            self.vif_driver = vif.VIFDriver(self._host)

    def init_host(self, host):
        super().init_host(host)
        # Nova's own may be over TCP, which hands no open files to QEMU.
        self._participation.start(CONF.hotsnap, host, CONF.hotsnap.local_uri or self._uri(),
                                  instances.Instances(host, self._power_state_of),
                                  definitions.Definitions(self))

    def cleanup_host(self, host):
        self._participation.stop()
        super().cleanup_host(host)

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        super().update_provider_tree(provider_tree, nodename, allocations)
        if self._participation.answers:
            provider_tree.add_traits(nodename, TRAIT)
        else:
            provider_tree.remove_traits(nodename, TRAIT)

    def resume_state_on_host_boot(self, context, instance, *args, **kwargs):
        # One that is being restored is stopped on purpose, or has the disk of the cut: the
        # restore starts it at its end, or what was before it.
        if self._participation.restores(instance):
            LOG.info('Not started with the host: a restore of its group has it', instance=instance)
            return
        super().resume_state_on_host_boot(context, instance, *args, **kwargs)

    def _power_state_of(self, instance):
        try:
            return self.get_info(instance).state
        except exception.InstanceNotFound:
            return power_state.SHUTDOWN
        except exception.NovaException:
            LOG.warning('libvirt does not say what it is', instance=instance, exc_info=True)
            return power_state.NOSTATE


def _guarded(name, meet):
    stock = getattr(libvirt_driver.LibvirtDriver, name)
    signature = inspect.signature(stock)

    @functools.wraps(stock)
    def method(self, *args, **kwargs):
        instance = signature.bind(self, *args, **kwargs).arguments['instance']
        meet(self._participation, instance, name)
        return getattr(super(HotSnapLibvirtDriver, self), name)(*args, **kwargs)
    method.__signature__ = signature    # read by what compares drivers
    setattr(HotSnapLibvirtDriver, name, method)


def _withdraw(ours, instance, name):
    ours.withdraw(instance, f'Nova has to {name.replace("_", " ")} the instance')


def _refuse(ours, instance, name):
    ours.refuse_while_busy(instance, name)


for _name in WITHDRAWING:
    _guarded(_name, _withdraw)
for _name in REFUSED:
    _guarded(_name, _refuse)
