# SPDX-License-Identifier: Apache-2.0
"""The engine: hot snapshots of running guests through libvirt and QEMU.

``host.Engine`` is the way in; ``member.Member`` is one guest's part. Their nouns have rooms:
``gates``, ``disks``, ``memory``, ``definition``, ``checks``, ``restore``. ``records``,
``definitions`` and ``files`` are what callers may know besides.
"""
