# SPDX-License-Identifier: Apache-2.0
"""Whether this host, and this process's privilege, will do for gates in the kernel."""

import contextlib
import json

from hotsnap_nova.virt.gates import bpf, holding, hooks, kernel


def missing() -> tuple[str, str] | None:
    """What stands in the way, and the remedy; None where nothing does.

    Tried, not guessed: the programs are loaded and hooked in at a tap of our own, which is gone
    again when this returns. No guest's device is touched.
    """
    with contextlib.ExitStack() as undo:

        def device():
            made = holding.HoldingDevice(1)
            undo.callback(made.close)
            return made

        def loaded(path):
            made = bpf.Loaded(path)
            undo.callback(made.close)
            return made

        remedy = ''
        try:
            remedy = 'install libbpf1, that is libbpf 1.0 or later'
            bpf.library()
            remedy = 'take a package that was built where clang and libbpf-dev are installed'
            path = kernel.object_path()
            remedy = 'it takes the kernel module tun, /dev/net/tun and CAP_NET_ADMIN'
            tap = device()
            remedy = 'it takes Linux 5.14 or later, CAP_BPF and CAP_NET_ADMIN'
            programs = loaded(path)
            remedy = 'it takes the kernel modules sch_ingress and cls_bpf, and CAP_NET_ADMIN'
            for ingress, name in ((True, 'put_back'), (False, 'into_holding'),
                                  (False, 'from_guest')):
                hooks.attach(tap.ifindex, ingress, programs.program(name), 'probe')
                for hook in hooks.leftovers(tap.ifindex):
                    hooks.detach(hook)
        except bpf.GateUnavailable as exc:
            return exc.kwargs['reason'], remedy
    return None


if __name__ == '__main__':
    print(json.dumps(missing()))
