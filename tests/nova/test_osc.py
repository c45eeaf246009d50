# SPDX-License-Identifier: Apache-2.0
"""``openstack server group snapshot``, typed."""

import importlib.metadata
import pathlib
import re
import shlex
import uuid
from unittest import mock

from hotsnap_nova import exception
from tests.nova import osc

ROOT = pathlib.Path(__file__).parents[2]
FAILURE = {'code': 'pause_too_long', 'message': 'Member web-1 was paused for too long.',
           'member': 'web-1', 'host': 'host0'}


class OscTest(osc.OscTestCase):

    def stored(self):
        return list(self.conductor.snapshots.values())

    def test_create_by_group_name_shows_the_snapshot_in_the_making(self):
        group = self.make_group('shop')

        ran = self.snapshot('create', 'shop', '--name', 'nightly', '--description', 'before',
                            '--property', 'a=1', '--property', 'b=2', '--gate', 'barrier',
                            '--disk', 'backup', '-f', 'json')

        assert ran.status == 0, ran.err
        wanted = {'name': 'nightly', 'description': 'before', 'status': 'creating',
                  'properties': {'a': '1', 'b': '2'}, 'gate': 'barrier',
                  'server_group_id': group}
        assert {key: ran.json[key] for key in wanted} == wanted
        assert [each['name'] for each in ran.json['members']] == ['web-1', 'web-2']

    def test_create_wait_tells_phases_on_stderr_and_the_result_on_stdout(self):
        group = self.make_group('shop')

        ran = self.snapshot('create', group, '--wait', '-f', 'json')

        assert ran.status == 0, ran.err
        assert ran.json['status'] == 'available'
        assert ran.json['members'][0]['pause_ms'] == 12.25
        assert ran.err.splitlines() == [f'shop-1: {each}' for each in (
            'preparing', 'taking the cut', 'opening the gates', 'saving', 'publishing',
            'available')]

    def test_quiet_wait_is_quiet(self):
        self.make_group('shop')

        ran = self.openstack('-q', 'server', 'group', 'snapshot', 'create', 'shop', '--wait',
                             '-f', 'value', '-c', 'status')

        assert (ran.status, ran.out.strip(), ran.err) == (0, 'available', '')

    def test_create_wait_of_one_that_fails_says_why_and_exits_1(self):
        self.make_group('shop')
        self.conductor.fail_next = FAILURE

        ran = self.snapshot('create', 'shop', '--wait')

        assert (ran.status, ran.out) == (1, '')
        assert ran.err.splitlines()[-1] == (
            'Snapshot shop-1 failed: Member web-1 was paused for too long. (pause_too_long)')

    def test_what_the_service_refuses_is_one_sentence_and_exit_1(self):
        self.make_group('shop')
        self.conductor.quota = 0
        for words, said in (
                (('create', 'shop'), 'Quota exceeded: 0 of 0'),
                (('create', 'no-such-group'), 'No server group found for no-such-group'),
                (('create', 'shop', '--name', ' spaced'), "An invalid 'name' value"),
                (('show', 'no-such-snapshot'), 'No snapshot found for no-such-snapshot'),
                (('restore', str(uuid.uuid4())), 'No snapshot found'),
                (('list', '--all-projects'), "Policy doesn't allow")):
            with self.subTest(words):
                ran = self.snapshot(*words)

                assert (ran.status, ran.out) == (1, '')
                assert said in ran.err.splitlines()[0]
                assert 'Traceback' not in ran.err

    def test_a_gate_for_experiments_is_no_users(self):
        self.make_group('shop')

        ran = self.snapshot('create', 'shop', '--gate', 'none')

        assert ran.status == 2
        assert self.stored() == []

    def test_list_filters_and_tells_more_when_asked(self):
        group = self.make_group('shop')
        made = self.make_available(group=group, name='first', properties={'a': '1'})
        self.make_snapshot(name='second')

        brief = self.snapshot('list', '-f', 'json')
        long = self.snapshot('list', '--long', '--group', 'shop', '--status', 'available',
                             '-f', 'json')
        of_group_id = self.snapshot('list', '--group', group, '-f', 'value', '-c', 'Name')

        assert [(each['Name'], each['Status'], each['Server Group']) for each in brief.json] == [
            ('second', 'creating', 'web'), ('first', 'available', 'shop')]
        assert [(each['ID'], each['Size (bytes)'], each['Properties'], each['Error'])
                for each in long.json] == [(made['id'], 2 << 20, {'a': '1'}, None)]
        assert of_group_id.out.split() == ['first']

    def test_a_deleted_groups_snapshots_are_listed_by_its_id(self):
        group = self.make_group('shop')
        self.make_available(group=group, name='kept')
        self.api.delete(f'/os-server-groups/{group}')

        ran = self.snapshot('list', '--group', group, '-f', 'value', '-c', 'Name')

        assert (ran.status, ran.out.split()) == (0, ['kept'])

    def test_a_group_that_never_was_is_told_so(self):
        ran = self.snapshot('list', '--group', 'no-such-group')

        assert (ran.status, ran.out) == (1, '')
        assert ran.err.splitlines()[0] == 'No server group found for no-such-group'

    def test_list_of_many_pages_is_one_list(self):
        group = self.make_group()
        for number in range(5):
            self.make_snapshot(group, name=f'n{number}')

        whole = self.snapshot('list', '--limit', '2', '-f', 'value', '-c', 'Name')
        some = self.snapshot('list', '--limit', '2', '--max-items', '3', '-f', 'value', '-c',
                             'Name')

        assert whole.out.split() == ['n4', 'n3', 'n2', 'n1', 'n0']
        assert some.out.split() == ['n4', 'n3', 'n2']

    def test_show_takes_a_name_or_an_id_and_tells_people_a_line_a_member(self):
        made = self.make_available(name='nightly')

        by_name = self.snapshot('show', 'nightly')
        by_id = self.snapshot('show', made['id'], '-f', 'json')

        assert 'pause 12.2 ms, wait 0.0 ms, hold 14.5 ms, 1048576 bytes' in by_name.out
        assert by_id.json['size_bytes'] == 2 << 20
        assert 'host' in by_id.json['members'][0]
        assert by_id.json['members'][0]['host'] is None

    def test_an_ambiguous_name_asks_for_an_id(self):
        one, two = self.make_available(name='twin'), self.make_available(name='twin')

        ran = self.snapshot('delete', 'twin')

        assert ran.status == 1
        assert all(each in ran.err for each in (
            'More than one snapshot is named twin, use an ID', one['id'], two['id']))
        assert len(self.stored()) == 2

    def test_what_others_wrote_does_nothing_to_a_terminal(self):
        evil = '\x1b]0;mine\x07\x9b2J\u202e'
        self.make_available(name='kept', properties={'a': evil})
        self.stored()[0]['error'] = FAILURE | {'message': evil}
        self.stored()[0]['group_name'] = evil

        shown = [self.snapshot(*words) for words in (
            ('show', 'kept'), ('show', 'kept', '-f', 'value'), ('show', 'kept', '-f', 'shell'),
            ('list', '--long'), ('list', '--long', '-f', 'csv'))]
        exact = self.snapshot('show', 'kept', '-f', 'json')
        self.conductor.fail_next = FAILURE | {'message': evil}
        failed = self.snapshot('create', self.make_group('shop'), '--wait')

        for ran in (*shown, failed):
            assert '\\x1b' in ran.out + ran.err, ran
        for ran in (*shown, exact, failed):
            assert not set('\x1b\x07\x9b\u202e') & set(ran.out + ran.err), ran
        assert exact.json['properties'] == {'a': evil}

    def test_set_changes_what_is_given_and_keeps_other_properties(self):
        made = self.make_available(name='old', description='kept', properties={'a': '1'})

        ran = self.snapshot('set', made['id'], '--name', 'new', '--property', 'b=2')

        assert (ran.status, ran.out) == (0, '')
        stored = self.stored()[0]
        assert (stored['name'], stored['description'], stored['properties']) == (
            'new', 'kept', {'a': '1', 'b': '2'})

    def test_unset_removes_properties_and_nothing_else(self):
        self.make_available(name='kept', description='as it was',
                            properties={'a': '1', 'b': '2', 'c': '3'})

        ran = self.snapshot('unset', 'kept', '--property', 'a', '--property', 'c')

        assert (ran.status, ran.out) == (0, ''), ran.err
        stored = self.stored()[0]
        assert (stored['name'], stored['description'], stored['properties']) == (
            'kept', 'as it was', {'b': '2'})

    def test_unset_of_the_last_property_leaves_none(self):
        self.make_available(name='kept', properties={'a': '1'})

        assert self.snapshot('unset', 'kept', '--property', 'a').status == 0

        assert self.stored()[0]['properties'] == {}

    def test_unset_of_what_is_not_set_changes_nothing(self):
        self.make_available(name='kept', properties={'a': '1'})

        ran = self.snapshot('unset', 'kept', '--property', 'a', '--property', 'z')

        assert ran.status == 1
        assert ran.err.strip() == 'Snapshot kept has no property z'
        assert self.stored()[0]['properties'] == {'a': '1'}

    def test_set_state_is_an_admins(self):
        self.make_available(name='nightly')

        refused = self.snapshot('set', 'nightly', '--state', 'error')
        done = self.snapshot('set', 'nightly', '--state', 'error', user=self.admin)

        assert (refused.status, done.status) == (1, 0)
        assert self.stored()[0]['status'] == 'error'

    def test_delete_goes_on_after_a_failure_and_counts(self):
        self.make_available(name='one')
        self.make_available(name='two')

        ran = self.snapshot('delete', 'one', 'lost', 'two', '--wait')

        assert ran.status == 1
        assert 'Failed to delete snapshot lost: No snapshot found for lost' in ran.err
        assert ran.err.splitlines()[-1] == '1 of 3 snapshots failed to delete.'
        assert self.stored() == []

    def test_delete_wait_tells_of_a_delete_that_fails(self):
        self.make_available(name='stuck')
        self.conductor.fail_next = FAILURE | {'code': 'host_unreachable', 'message': 'Away.'}

        ran = self.snapshot('delete', 'stuck', '--wait')

        assert ran.status == 1
        assert 'Snapshot stuck was not deleted: Away. (host_unreachable)' in ran.err

    def test_delete_force_is_an_admins(self):
        self.make_snapshot(name='making')

        refused = self.snapshot('delete', 'making', '--force')
        done = self.snapshot('delete', 'making', '--force', '--wait', user=self.admin)

        assert (refused.status, done.status) == (1, 0)
        assert self.stored() == []

    def test_restore_wait_follows_it_to_its_end(self):
        self.make_available(name='nightly')

        ran = self.snapshot('restore', 'nightly', '--wait')

        assert (ran.status, ran.out) == (0, '')
        assert ran.err.splitlines() == [f'nightly: {each}' for each in (
            'restoring', 'stopping the old members', 'starting, paused', 'resuming',
            'available')]

    def test_restore_wait_and_show_tell_what_it_warns_of(self):
        made = self.make_available(name='nightly')
        web = next(iter(made['members']))
        self.conductor.warnings = [{
            'member': web['id'], 'name': web['name'], 'host': 'host1', 'device': 'clock',
            'cause': 'it lags by 3 s \x1b[2J', 'remedy': 'have it set'}]

        ran = self.snapshot('restore', 'nightly', '--wait', '-q')

        told = f'warning: {web["name"]}, clock: it lags by 3 s \\x1b[2J. Remedy: have it set.'
        assert (ran.status, ran.out, ran.err.splitlines()) == (0, '', [told])
        assert told in self.snapshot('show', 'nightly', '-c', 'last_action').out
        (warning,) = self.snapshot('show', 'nightly', '-f', 'json').json[
            'last_action']['result']['warnings']
        assert (warning['server_id'], warning['device']) == (web['id'], 'clock')

    def test_restore_may_keep_the_present_first(self):
        self.make_available(name='nightly')

        ran = self.snapshot('restore', 'nightly', '--keep-present', 'before', '--wait')

        assert (ran.status, ran.out) == (0, '')
        assert ('restore', {'ignore_new_members': False, 'drop_internal_snapshots': False,
                            'keep_present': 'before'}) in self.conductor.calls
        assert ran.err.splitlines() == [f'nightly: {each}' for each in (
            'available', 'keeping the present', 'stopping the old members', 'starting, paused',
            'resuming', 'available')]

    def test_restore_wait_of_one_that_fails_says_why_and_exits_1(self):
        self.make_available(name='nightly')
        self.conductor.fail_next = FAILURE | {'code': 'snapshot_damaged', 'message': 'Bits rot.'}

        ran = self.snapshot('restore', 'nightly', '--wait')

        assert ran.status == 1
        assert ran.err.splitlines()[-1] == (
            'The restore of snapshot nightly failed: Bits rot. (snapshot_damaged)')

    def test_restore_with_new_members_wants_to_be_told_to_ignore_them(self):
        made = self.make_available(name='nightly')
        self.conductor.groups[made['group_id']]['members']['new'] = 'web-3'

        refused = self.snapshot('restore', 'nightly')
        done = self.snapshot('restore', 'nightly', '--ignore-new-members')

        assert (refused.status, done.status) == (1, 0)
        assert 'web-3' in refused.err

    def test_restore_drops_internal_snapshots_only_if_it_is_told_to(self):
        for words in ((), ('--drop-internal-snapshots',)):
            made = self.make_available()

            assert self.snapshot('restore', made['id'], *words).status == 0

            (told,) = [call[1] for call in self.conductor.calls if call[0] == 'restore'][-1:]
            assert told['drop_internal_snapshots'] is bool(words)

    def test_verify_wait_tells_how_much_was_read(self):
        self.make_available(name='nightly')

        begun = self.snapshot('verify', 'nightly', '-f', 'json')
        self.conductor._future.clear()
        done = self.snapshot('verify', 'nightly', '--wait', '-f', 'json')

        assert (begun.json['last_action']['status'], begun.json['files']) == ('running', None)
        assert (done.json['last_action']['status'], done.json['files']) == ('done', 6)

    def test_abort_wait_ends_in_error_and_too_late_is_a_failure(self):
        self.make_snapshot(name='making')
        self.make_available(name='made')

        aborted = self.snapshot('abort', 'making', '--wait')
        late = self.snapshot('abort', 'made')

        assert (aborted.status, late.status) == (0, 1)
        assert 'Snapshot made is available.' in late.err
        assert self.stored()[0]['error']['code'] == 'aborted'

    def test_check_exits_by_its_verdict(self):
        self.make_group('shop')

        possible = self.snapshot('check', 'shop', '-f', 'json')
        self.conductor.verdict = {
            'possible': True, 'restorable': False, 'gates': ['hold'], 'findings': [
                {'member': 'x', 'name': 'web-1', 'host': 'host0', 'device': 'vda',
                 'cause': 'a snapshot inside', 'remedy': 'delete it', 'rules_out': ['restore']}]}
        impossible = self.snapshot('check', 'shop')

        assert (possible.status, impossible.status) == (0, 1)
        assert 'a snapshot inside (rules out restore). Remedy: delete it.' in impossible.out
        assert possible.json['gates'] == ['barrier']
        assert possible.json['findings'][0]['remedy'] == 'take it off vhost'
        assert 'False' in impossible.out

    def test_wait_outlives_a_service_that_is_away_for_a_while(self):
        self.make_group('shop')
        self.conductor.faults['get'] = exception.HostUnreachable(host='x', reason='restart')
        self.conductor.faults_left = 3

        ran = self.snapshot('create', 'shop', '--wait', '-f', 'value', '-c', 'status')

        assert (ran.status, ran.out.strip()) == (0, 'available'), ran.err

    def test_what_the_documents_type_is_understood(self):
        commands = {each.name.rpartition('_')[2]: each.load()
                    for each in importlib.metadata.entry_points(group='openstack.hotsnap.v1')}
        typed = [line for name in ('README.md', 'doc/operator.md', 'devstack/README.rst')
                 for line in re.findall(r'\$ openstack server group snapshot (.+)',
                                        (ROOT / name).read_text())]

        assert {line.split()[0] for line in typed} == set(commands)
        for line in typed:
            verb, *words = shlex.split(line, comments=True)
            commands[verb](mock.MagicMock(), None).get_parser(verb).parse_args(words)

    def test_each_verb_has_help_and_one_module(self):
        commands = importlib.metadata.entry_points(group='openstack.hotsnap.v1')

        assert {each.name.rpartition('_')[2] for each in commands} == {
            'create', 'list', 'show', 'set', 'unset', 'delete', 'restore', 'verify', 'abort',
            'check'}
        for each in commands:
            assert each.load().__doc__
