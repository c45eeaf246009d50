# SPDX-License-Identifier: Apache-2.0
"""What a step could not do for a member is that member's fault, and keeps no other.

But where nothing can be judged, which is to be tried again as a whole.
"""

import contextlib
import time
from collections.abc import Callable, Iterable

from oslo_log import log

from hotsnap_nova import exception
from hotsnap_nova.virt import records
from hotsnap_nova.virt.restore import parts

LOG = log.getLogger(__name__)

#: How long a file system that fails at one member's files is tried again.
_FILES_TIMEOUT_S = 10.0
_LOOK_S = 0.1


class Told:
    """What there is to tell of a step's members.

    :param is_undo: disks have to come back, so what nobody expected is tried again
    """

    def __init__(self, is_undo: bool = False):
        self._is_undo = is_undo
        self._faults = []
        self._again = []

    @contextlib.contextmanager
    def of(self, part: parts.Part):
        """Whatever is raised within is of this member, or nothing could be judged."""
        try:
            yield
        except (exception.HostUnreachable, OSError) as exc:
            self._again.append(exc)
        except exception.HotsnapError as exc:
            LOG.warning('%s', exc)
            self._faults.append(records.RestoreFault(part.spec.id, exc))
        except Exception as exc:    # of whoever defines guests, or a bug
            LOG.exception('%s is left as it is', part.spec)
            if self._is_undo:
                self._again.append(exc)
                return
            self._faults.append(records.RestoreFault(part.spec.id, exception.MemberLeft(
                member=part.spec, reason=f'{type(exc).__name__}: {exc}; {part.where()}')))

    def each(self, members: Iterable[parts.Part], do: Callable[[parts.Part], None],
             then: Callable[[], None] = lambda: None) -> None:
        """Do it for each, and then what is to be done for all; again, whose file system failed.

        For a while: a disk that is full, or can only be read, may be so for ever.

        :param then: called after each round
        """
        deadline, left = time.monotonic() + _FILES_TIMEOUT_S, list(members)
        while left:
            is_last, again = time.monotonic() > deadline, []
            for part in left:
                with self.of(part):
                    try:
                        do(part)
                    except OSError as exc:
                        if is_last:
                            raise exception.MemberLeft(
                                member=part.spec, reason='what lies beside its disks cannot be '
                                f'changed: {exc}; {part.where()}') from exc
                        LOG.warning('%(member)s is tried again: %(error)s',
                                    {'member': part.spec, 'error': exc})
                        again.append(part)
            then()
            if left := again:
                time.sleep(_LOOK_S)

    def outcome(self) -> records.RestoreOutcome:
        """:raises Exception: libvirt or a file system was away: all is to be tried again"""
        if self._again:
            raise self._again[0]
        return records.RestoreOutcome(tuple(self._faults))
