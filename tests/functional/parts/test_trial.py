# SPDX-License-Identifier: Apache-2.0
"""What of a failed load on trial is said of the member, and what of there being two of it."""

import libvirt
import pytest

from hotsnap_nova import exception
from hotsnap_nova.virt import records
from hotsnap_nova.virt.restore import trial

MEMBER = records.MemberSpec('a', 'web')


def error(code, words):
    failed = libvirt.libvirtError(words)
    failed.err = (code, libvirt.VIR_FROM_QEMU, words, 2, '', '', '', -1, -1)
    return failed


@pytest.mark.parametrize(('code', 'words', 'of_two'), [
    (libvirt.VIR_ERR_INTERNAL_ERROR, 'load of migration failed: Invalid argument', False),
    (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "machine type 'pc-i440fx-2.1' is not supported", False),
    (libvirt.VIR_ERR_SYSTEM_ERROR, 'Unable to create tap device: Operation not permitted', True),
    (libvirt.VIR_ERR_INTERNAL_ERROR, 'cannot set up guest memory: Cannot allocate memory', True),
    (libvirt.VIR_ERR_HOOK_SCRIPT_FAILED, 'Hook script execution failed', True)])
def test_what_a_second_one_lacks_is_no_refusal(monkeypatch, code, words, of_two):
    class Part:
        spec = MEMBER

    def load(*_):
        raise exception.HypervisorError(member=MEMBER, reason=words) from error(code, words)
    monkeypatch.setattr(trial.guest, 'load', load)
    wanted = trial._Untried if of_two else exception.Refused

    with pytest.raises(wanted, match=words.split(':')[0]):
        trial._wake(Part, '/memory', lambda: None, lambda: None, 30.0)


def test_a_second_one_that_hangs_is_not_waited_for(monkeypatch):
    class Part:
        spec = MEMBER
    hangs, given_up = [], []

    def load(*_):
        hangs.append(True)
        trial.threading.Event().wait(60)

    def tell():
        if hangs:
            raise exception.Aborted(who='a user')
    monkeypatch.setattr(trial, '_END_S', 0.2)
    monkeypatch.setattr(trial.guest, 'load', load)
    monkeypatch.setattr(trial, 'end', lambda *_: given_up.append(True))

    with pytest.raises(exception.HostUnreachable, match='hotsnap-trial-a does not end'):
        trial._wake(Part, '/memory', lambda: None, tell, 30.0)

    assert given_up
