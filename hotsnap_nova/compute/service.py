# SPDX-License-Identifier: Apache-2.0
"""A host's manager as its configuration says."""

import hashlib
import os

from hotsnap_nova import exception, storage
from hotsnap_nova.compute import locks, manager


def open_manager(conf, open_engine=None) -> manager.ComputeManager:
    """The manager of this host's guests and store, not started.

    :param conf: group ``[hotsnap]`` of the configuration
    :param open_engine: gives an engine for (uri, keep_hours); None: QEMU's
    :raises Unavailable: libvirt or the store or a folder cannot be used
    """
    if open_engine is None:
        from hotsnap_nova.virt import host
        open_engine = host.Engine
    state_path = os.path.abspath(conf.state_path)
    store = storage.open_store(conf.store, conf.store_path)
    return manager.ComputeManager(conf.host, open_engine(conf.uri, conf.restore_keep_hours),
                                  store, state_path, _domain_locks(conf))


def _domain_locks(conf) -> locks.Locks:
    libvirt = hashlib.blake2s(conf.uri.encode(), digest_size=6).hexdigest()
    try:
        return locks.Locks(os.path.abspath(conf.lock_path), prefix=f'{libvirt}-')
    except OSError as exc:
        raise exception.StoreUnavailable(
            store=conf.lock_path,
            reason=f'{exc.strerror}; name another folder with lock_path') from exc
