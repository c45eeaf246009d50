# SPDX-License-Identifier: Apache-2.0
"""What is in a disk's image beside the guest's data, and goes with the image at a restore."""

from collections.abc import Collection, Iterator, Sequence

#: Of what a restore drops only if it is told to.
REMEDY = 'restore with --drop-internal-snapshots, if that is meant, or delete them'
#: So many are named; backups may have made hundreds.
_NAMED = 5


def dropped(described: dict, bitmaps: Collection[str] = ()) -> Iterator[str]:
    """Yield, in a sentence's words, what a restore of this disk would drop.

    :param described: the image, in the words of ``qemu-img info`` or of QEMU
    :param bitmaps: names of those that QEMU keeps, and has not written to the image yet
    """
    if snapshots := [each['name'] for each in described.get('snapshots', ())]:
        yield f'its image has internal snapshots ({named(snapshots)}), which a restore drops'
    written = described.get('format-specific', {}).get('data', {}).get('bitmaps', ())
    if marks := sorted({*bitmaps, *(each['name'] for each in written)}):
        yield (f'its image has dirty bitmaps ({named(marks)}), which a restore drops: '
               'checkpoints of backups')


def named(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''
    return ', '.join(names[:_NAMED]) + more
