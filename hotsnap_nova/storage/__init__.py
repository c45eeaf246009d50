# SPDX-License-Identifier: Apache-2.0
"""Where snapshots are kept. A store is a plug-in of ``hotsnap.store``."""

from stevedore import driver
from stevedore import exception as stevedore_exception

from hotsnap_nova import exception
from hotsnap_nova.storage import base

NAMESPACE = 'hotsnap.store'


def open_store(name: str, path: str) -> base.Store:
    """The store registered under ``name``, keeping its things at ``path``.

    :raises StoreUnavailable: no such plug-in, or it cannot be used
    """
    try:
        return driver.DriverManager(
            NAMESPACE, name, invoke_on_load=True, invoke_kwds={'path': path}).driver
    except stevedore_exception.NoMatches as exc:
        raise exception.StoreUnavailable(store=name, reason='no such store is installed') from exc
