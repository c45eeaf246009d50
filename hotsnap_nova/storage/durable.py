# SPDX-License-Identifier: Apache-2.0
"""Changes to a folder tree that survive a loss of power, or did not happen.

Nothing here follows a symbolic link.
"""

import os
import shutil
import stat
import uuid

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def make_folder(path: str) -> None:
    """A private folder at ``path``, whose parent exists; one there already is kept.

    :raises NotADirectoryError: something else is there
    """
    try:
        os.mkdir(path, FOLDER_MODE)
    except FileExistsError:
        if not is_folder(path):
            raise NotADirectoryError(f'{path} is no folder') from None
    else:
        sync(os.path.dirname(path))


def make_folders(path: str) -> None:
    """As `make_folder`, and its parents where they are not there."""
    parent = os.path.dirname(path)
    if not is_folder(path):
        if parent != path:
            make_folders(parent)
        make_folder(path)


def is_folder(path: str) -> bool:
    """Whether a folder is there; a symbolic link to one is none."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def sync(path: str) -> None:
    """Bring one file's content or one folder's entries to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: str) -> None:
    """Make everything below a folder private and bring it to the disk, deepest first.

    :raises OSError: something below is neither file nor folder
    """
    for _, folders, files, folder_fd in os.fwalk(path, topdown=False):
        for name in folders + files:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder_fd)
            try:
                mode = os.fstat(fd).st_mode
                if stat.S_ISDIR(mode):
                    continue    # fwalk comes to it by itself
                if not stat.S_ISREG(mode):
                    raise OSError(f'{name} is neither file nor folder')
                os.fchmod(fd, FILE_MODE)
                os.fsync(fd)
            finally:
                os.close(fd)
        os.fchmod(folder_fd, FOLDER_MODE)
        os.fsync(folder_fd)


def write(path: str, content: bytes) -> None:
    """A private file with this content: the old one or the new one, never half.

    One writer at a time; what a crash leaves beside it, the next one uses up.
    """
    aside = f'{path}.new'
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE)
    with open(fd, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    rename(aside, path)


def rename(source: str, target: str) -> None:
    """Give a file or folder its new name, in one step."""
    os.rename(source, target)
    sync(os.path.dirname(target))
    if os.path.dirname(source) != os.path.dirname(target):
        sync(os.path.dirname(source))


def remove(path: str, trash: str) -> bool:
    """Make a folder disappear in one step, then give its space back.

    :param trash: folder on the same file system, for ``empty`` to finish what
        a crash leaves there
    :returns: whether there was anything
    """
    aside = os.path.join(trash, uuid.uuid4().hex)
    try:
        rename(path, aside)
    except FileNotFoundError:
        return False
    shutil.rmtree(aside)
    return True


def empty(trash: str) -> int:
    """Finish the removals that a crash interrupted; how many there were."""
    with os.scandir(trash) as entries:
        left = [entry.path for entry in entries]
    for path in left:
        # Another process may be at the same work.
        shutil.rmtree(path, ignore_errors=True)
    return len(left)
