# SPDX-License-Identifier: Apache-2.0
"""What Nova's users are told: instance actions with their events, and notifications.

As Nova's own snapshots and restores tell it. Nothing depends on it: what cannot
be told is logged.
"""

import contextlib
import enum
import functools

from nova import exception as nova_exception
from nova import objects, rpc
from nova.compute import instance_actions
from nova.compute import utils as compute_utils
from nova.objects import fields
from oslo_log import log as logging

LOG = logging.getLogger(__name__)


class Action(enum.Enum):
    """(instance action, its event, the notifications' name)."""

    SNAPSHOT = instance_actions.CREATE_IMAGE, 'compute_snapshot_server_group', 'snapshot'
    RESTORE = instance_actions.RESTORE, 'compute_restore_server_group', 'restore'


SNAPSHOT = Action.SNAPSHOT
RESTORE = Action.RESTORE


class Reports:
    """Tells them in the name of one host."""

    def __init__(self, host: str):
        self._host = host

    @functools.cached_property
    def _notifier(self):
        return rpc.get_notifier('compute', self._host)

    def began(self, context, instance, action: Action, claim: str) -> None:
        """It was claimed.

        :param claim: id of the snapshot, or of the restore
        """
        name, event, _ = action.value
        with _logged(instance):
            objects.InstanceAction.action_start(context, instance.uuid, name, want_result=False)
            objects.InstanceActionEvent.event_start(context, instance.uuid, event,
                                                    want_result=False, host=self._host)
        self._notify(context, instance, action, fields.NotificationPhase.START, claim)

    def ended(self, context, instance, action: Action, claim: str, error: str) -> None:
        """It was given back.

        :param error: empty: it went well
        """
        with _logged(instance):
            objects.InstanceActionEvent.event_finish_with_failure(
                context, instance.uuid, action.value[1], exc_val=error or None,
                exc_tb='' if error else None, want_result=False)
        if not error:
            self._notify(context, instance, action, fields.NotificationPhase.END, claim)

    def _notify(self, context, instance, action, phase, claim):
        name = action.value[2]
        with _logged(instance):
            compute_utils.notify_about_instance_usage(
                self._notifier, context, instance, f'{name}.{phase}')
            if action is Action.SNAPSHOT:
                compute_utils.notify_about_instance_snapshot(
                    context, instance, self._host, phase=phase, snapshot_image_id=claim)
            else:
                compute_utils.notify_about_instance_action(
                    context, instance, self._host, action=name, phase=phase)


@contextlib.contextmanager
def _logged(instance):
    try:
        yield
    except nova_exception.InstanceNotFound:
        LOG.info('Deleted meanwhile', instance=instance)
    except Exception:
        LOG.exception('Not told to the users of Nova', instance=instance)
