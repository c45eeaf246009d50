# SPDX-License-Identifier: Apache-2.0
"""A host's manager as its configuration says."""

import hashlib
import os

from hotsnap_nova import exception, storage
from hotsnap_nova.compute import locks, manager, owner
from hotsnap_nova.storage import digest
from hotsnap_nova.virt import records


def open_manager(conf, open_engine=None, host: str | None = None, uri: str | None = None,
                 guests_owner: owner.Owner | None = None,
                 definitions=None, files=None) -> manager.ComputeManager:
    """The manager of this host's guests and store, not started.

    :param conf: group ``[hotsnap]`` of the configuration
    :param open_engine: gives an engine for (uri, keep_hours); None: QEMU's
    :param host: instead of ``conf.host``; ``uri`` likewise
    :param guests_owner: see `participants.Participants`
    :param definitions: see `virt.definitions`; None: libvirt's
    :param files: see `virt.files`; None: as this process
    :raises Unavailable: libvirt or the store or a folder cannot be used
    """
    if open_engine is None:
        from hotsnap_nova.virt.host import Engine
        open_engine = Engine
    host, uri = host or conf.host, uri or conf.uri
    state_path = os.path.abspath(conf.state_path)
    store = storage.open_store(conf.store, conf.store_path)
    engine = open_engine(uri, conf.restore_keep_hours)
    engine.effort = records.Effort(conf.io_limit_mib_s << 20, conf.direct_io)
    engine.reserve_bytes = conf.reserve_mib << 20
    engine.tries_loads = conf.trial_load
    engine.trial_reserve_bytes = conf.trial_reserve_mib << 20
    engine.store_path = store.root
    store.reading = digest.Reading(conf.io_limit_mib_s << 20, conf.direct_io)
    if definitions:
        engine.definitions = definitions
    if files:
        engine.files = files
    return manager.ComputeManager(host, engine, store, state_path,
                                  _domain_locks(conf, uri), guests_owner)


def _domain_locks(conf, uri) -> locks.Locks:
    libvirt = hashlib.blake2s(uri.encode(), digest_size=6).hexdigest()
    try:
        return locks.Locks(os.path.abspath(conf.lock_path), prefix=f'{libvirt}-')
    except OSError as exc:
        raise exception.StoreUnavailable(
            store=conf.lock_path,
            reason=f'{exc.strerror}; name another folder with lock_path') from exc
