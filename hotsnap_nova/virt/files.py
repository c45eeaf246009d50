# SPDX-License-Identifier: Apache-2.0
"""What only root may do with files that libvirt has given to QEMU's user."""

import os


class Files:
    """As this process, which must be root; whoever is not asks a helper that is."""

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Give a file to a user and a group; -1: as it is."""
        os.chown(path, uid, gid)

    def touch(self, path: str) -> None:
        """Have a file count as changed now."""
        os.utime(path)
