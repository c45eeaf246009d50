# SPDX-License-Identifier: Apache-2.0
"""The lab guest's kernel and initramfs, made at first use.

Debian's cloud kernel is downloaded as a package and unpacked, nothing is
installed; busybox and our workload make the initramfs. Everything is kept in
the user's cache under a name derived from what it was made of, so a changed
workload makes a new image and old ones are never wrong, only stale.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

_SOURCE = pathlib.Path(__file__).parent / 'guest'
_BUSYBOX = pathlib.Path('/usr/bin/busybox')
_COMPILE = ('gcc', '-static', '-O2', '-Wall', '-Wextra', '-Werror', '-pthread')
# Order matters: each needs only what stands before it.
_MODULES = ('virtio_ring', 'virtio', 'virtio_pci_legacy_dev', 'virtio_pci_modern_dev',
            'virtio_pci', 'failover', 'net_failover', 'virtio_net', 'virtio_blk')
_CONFIG_DRIVE_MODULES = ('scsi_common', 'scsi_mod', 'libata', 'ata_piix', 'virtio_scsi', 'cdrom',
                         'sr_mod', 'isofs')


class ImageError(Exception):
    """The lab image cannot be made; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Image:
    """What a guest boots from."""

    kernel: pathlib.Path
    initramfs: pathlib.Path


def cache_folder() -> pathlib.Path:
    """The folder of everything the lab keeps between runs."""
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return pathlib.Path(base) / 'hotsnap' / 'lab'


def workload() -> pathlib.Path:
    """The workload as a static program; it runs on this host as in a guest."""
    return _made('workload', _sources_digest(), _compile) / 'workload'


def image(config_drive: bool = False) -> Image:
    """The guest's kernel and initramfs, made unless they are in the cache.

    :param config_drive: take arguments and address from OpenStack's config drive
    :raises ImageError: no package, no compiler or no busybox
    """
    wanted = _MODULES + (_CONFIG_DRIVE_MODULES if config_drive else ())
    kernel = _kernel_folder()
    program = workload()
    digest = _digest(kernel.name.encode(), program.read_bytes(), _busybox().read_bytes(),
                     (_SOURCE / 'init').read_bytes(), ' '.join(wanted).encode())
    made = _made('initramfs', digest, lambda folder: _pack(folder, kernel, program, wanted))
    return Image(kernel / 'vmlinuz', made / 'initramfs')


def _kernel_folder() -> pathlib.Path:
    """The current cloud kernel, or without a mirror the newest in the cache."""
    try:
        package = _kernel_package()
        modules = _digest(' '.join(_MODULES + _CONFIG_DRIVE_MODULES).encode())
        return _made('kernel', f'{package}-{modules}', lambda folder: _unpack(folder, package))
    except ImageError:
        held = sorted(cache_folder().glob('kernel-*'), key=lambda path: path.stat().st_mtime)
        if not held:
            raise
        return held[-1]


def _kernel_package() -> str:
    """The concrete package behind Debian's cloud kernel."""
    found = re.search(r'Depends: (linux-image-\d\S+)',
                      _run('apt-cache', 'depends', 'linux-image-cloud-amd64'))
    if not found:
        raise ImageError('apt knows no linux-image-cloud-amd64: run apt-get update')
    return found.group(1)


def _unpack(folder: pathlib.Path, package: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # apt drops privileges where it can; it may write here.
        os.chmod(scratch, 0o777)
        _run('apt-get', 'download', '-q', package, cwd=scratch)
        archive = next(pathlib.Path(scratch).glob('*.deb'))
        _run('dpkg-deb', '-x', str(archive), f'{scratch}/root')
        root = pathlib.Path(scratch) / 'root'
        shutil.copy(next((root / 'boot').glob('vmlinuz-*')), folder / 'vmlinuz')
        modules = folder / 'modules'
        modules.mkdir()
        for name in _MODULES + _CONFIG_DRIVE_MODULES:
            found = next((root / 'lib/modules').rglob(f'{name}.ko*'), None)
            # Later kernels build some of these in, or compress them.
            if found is not None and found.suffix == '.xz':
                _run('xz', '-dk', str(found))
                found = found.with_suffix('')
            if found is not None:
                shutil.copy(found, modules / f'{name}.ko')


def _compile(folder: pathlib.Path) -> None:
    sources = sorted(str(path) for path in _SOURCE.glob('*.c'))
    _run(*_COMPILE, *sources, '-o', str(folder / 'workload'))


def _pack(folder: pathlib.Path, kernel: pathlib.Path, program: pathlib.Path,
          wanted: tuple[str, ...]) -> None:
    held = [name for name in wanted if (kernel / 'modules' / f'{name}.ko').exists()]
    entries: list[tuple[str, int, bytes]] = [
        (name, 0o40755, b'')
        for name in ('bin', 'dev', 'drive', 'proc', 'sys', 'modules')]
    entries += [
        ('bin/busybox', 0o100755, _busybox().read_bytes()),
        ('init', 0o100755, (_SOURCE / 'init').read_bytes()),
        ('workload', 0o100755, program.read_bytes()),
        ('modules/order', 0o100644, '\n'.join(held).encode()),
    ]
    entries += [(f'modules/{name}.ko', 0o100644, (kernel / 'modules' / f'{name}.ko').read_bytes())
                for name in held]
    # Uncompressed: it is read once at full speed, and unpacking costs boot time.
    (folder / 'initramfs').write_bytes(_cpio(entries))


def _cpio(entries: list[tuple[str, int, bytes]]) -> bytes:
    """A 'newc' archive; the kernel documents it in buffer-format.rst."""
    archive = bytearray()
    for inode, (name, mode, data) in enumerate([*entries, ('TRAILER!!!', 0, b'')], start=1):
        encoded = name.encode() + b'\0'
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        archive += b'070701' + b''.join(b'%08X' % field for field in fields) + encoded
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def _busybox() -> pathlib.Path:
    if not _BUSYBOX.exists():
        raise ImageError('busybox is missing: install busybox-static')
    if b'/lib64/ld-linux' in _BUSYBOX.read_bytes():
        raise ImageError(f'{_BUSYBOX} is not static: install busybox-static')
    return _BUSYBOX


def _sources_digest() -> str:
    sources = sorted(_SOURCE.glob('*.[ch]'))
    return _digest(' '.join(_COMPILE).encode(), *(path.read_bytes() for path in sources))


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, 'little') + part)
    return digest.hexdigest()[:16]


def _made(name: str, key: str, make) -> pathlib.Path:
    """The cache's folder for this key; made whole or not at all, by one process."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f'{name}-{key}'
    with _lock(cache / f'.{name}.lock'):
        if not folder.exists():
            aside = pathlib.Path(tempfile.mkdtemp(prefix='.making-', dir=cache))
            try:
                os.chmod(aside, 0o755)
                make(aside)
                aside.rename(folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _lock(path: pathlib.Path):
    with open(path, 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*command: str, cwd: str | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise ImageError(f'{command[0]} is not installed') from exc
    if done.returncode:
        raise ImageError(f'{" ".join(command)}: {done.stderr.strip()}')
    return done.stdout
