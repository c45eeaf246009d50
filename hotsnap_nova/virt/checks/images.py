# SPDX-License-Identifier: Apache-2.0
"""What is in a guest's disk images and media, and where they are."""

from hotsnap_nova.virt.checks import subject
from hotsnap_nova.virt.disks import media


def readable_media(asked: subject.Subject):
    for disk in asked.parsed.disks:
        if disk.medium and (reason := media.fault(disk)):
            yield disk.target, reason, 'eject it, or insert it again, readable to us'


RULES = (readable_media,)
