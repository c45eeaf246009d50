# SPDX-License-Identifier: Apache-2.0
"""Print doc/definition.md, whose tables are those of hotsnap_nova/virt/definition/table.py.

python -m tools.definition_doc > doc/definition.md
"""

from hotsnap_nova.virt.definition import table

HEAD = """# What a restored guest is started with

*Printed by `python -m tools.definition_doc` from the table that restores use.*

A guest's memory finds again the hardware it ran on. Who the guest is and what the host gives it
may have changed since: its ports, its console's password, the host it runs on, the release of
Nova. So a restored guest is started with

- its **identity** as it is defined *today*: names, owners, ports, tokens, passwords, paths,
- its **hardware** as it was *at the cut*: what the guest sees,
- this **host**'s side as it is *today*: pinning, limits, labels, what serves a device.

Today's definition is libvirt's, or what Nova makes for a hard reboot. Without Nova, libvirt's
definition stays as it is: it counts again when the guest is started anew.

Where the hardware of today differs the cut's is taken: settings of Nova, another release of Nova
or libvirt and their defaults change it, and nobody meant to change the guest. What is changed on
purpose is refused, by member and device, before anything is stopped: a guest that was resized has
no use for the memory of a smaller one. What is in no table below counts as hardware, and a
difference in it is refused. No path is taken from the snapshot, whatever it belongs to: of
hardware that has one (firmware, an option ROM) another path is refused, too.

Beside the tables the host is asked whether it has the machine and the CPU the guest ran on, and at
last libvirt whether it would put this memory on what the guest is to be started with.

## The CPU

The snapshot has the CPU as it ran, feature by feature, as one of `virsh save` has it, and the
guest wakes with that. A host that has not all of it is refused, in libvirt's words. A guest with
`host-passthrough` (with KVM also `maximum`) runs on whatever the processor has: it is restored
where vendor, model and microcode are those of the cut. With `maximum` and without KVM, where QEMU
is.

## Disks

A disk of the cut is the one of today with the same image; where none has it, the one with
the same name (`vda`), if its image was moved with its name, or if both have one serial number.
Otherwise it is another disk, and refused: it would be overwritten. Where a disk grew since, it is
said that the restored one has its old size.
"""


def cell(text: str) -> str:
    return text.replace('|', '\\|')


def section(found: table.Section) -> str:
    about = ', '.join(f'`{element}`' for element in found.elements if element)
    lines = [f'## {found.title}', '', *([f'Below {about}:', ''] if about else []),
             '| what | is | taken from | refused where it differs | why |',
             '|---|---|---|---|---|']
    for rule in found.rules:
        paths = ' '.join(f'`{path}`' for path in rule.paths.split())
        giver = 'today' if rule.whose.todays else 'the cut'
        lines.append(f'| {paths} | {rule.whose.value} | {giver} | {cell(rule.refused)} '
                     f'| {cell(rule.why)} |')
    return '\n'.join(lines)


print(HEAD)
print('## How to read the tables\n\nPaths are elements of libvirt\'s domain XML; `.` is the one '
      'that the section is about, `@` an\nattribute, `/**` an element with all that is in it, '
      '`*` any device. The nearest path counts.\n')
print('\n\n'.join(section(each) for each in table.SECTIONS))
