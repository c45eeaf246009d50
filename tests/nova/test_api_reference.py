# SPDX-License-Identifier: Apache-2.0
"""doc/api is true: each sample is what the API answers, and no route is left out.

``WRITE_SAMPLES=1`` writes the samples instead; look at the difference before
it is committed.
"""

import json
import os
import pathlib
import re

from hotsnap_nova.api import router, versions
from hotsnap_nova.conductor import rpcapi
from hotsnap_nova.policies import list_rules
from tests.nova import base
from tests.nova.base import SNAPSHOTS

DOC = pathlib.Path(__file__).parents[2] / 'doc' / 'api'
SAMPLES = DOC / 'samples'
UUID = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')


class SamplesTest(base.ApiTestCase):

    def compare(self, name, body):
        """The body is what the sample says, but for what differs at each run."""
        seen = {}

        def stable(match):
            return seen.setdefault(match[0], f'5f0c1e2a-0000-4000-8000-{len(seen) + 1:012d}')
        text = json.dumps(body, indent=2, sort_keys=True) + '\n'
        text = re.sub(r'http://[^/"]*', 'https://compute.example.com', text)
        text = UUID.sub(stable, text)
        path = SAMPLES / f'{name}.json'
        if os.environ.get('WRITE_SAMPLES'):
            path.write_text(text)
        assert path.read_text() == text

    def ask(self, name, method, path, body=None, status=200, user=None):
        """Send a request, and compare it and its answer with their samples."""
        answer = (user or self.api).request(method, path, body)
        assert answer.status_code == status, answer.text
        if body is not None:
            self.compare(f'{name}-request', body)
        if answer.content:
            self.compare(f'{name}-response', answer.json())

    def test_each_sample_is_what_is_sent_and_answered(self):
        group = self.make_group('shop')
        self.ask('snapshot-create', 'POST', SNAPSHOTS, {'server_group_snapshot': {
            'server_group_id': group, 'name': 'nightly', 'description': 'before the upgrade',
            'properties': {'ticket': '4711'}, 'gate': 'auto', 'disk': 'backup'}}, 202)
        made = next(iter(self.conductor.snapshots.values()))
        self.conductor._created(made)
        self.conductor._future.clear()
        one = f'{SNAPSHOTS}/{made["id"]}'
        self.ask('snapshot-show', 'GET', one)
        self.ask('snapshot-show-admin', 'GET', one, user=self.admin)
        self.ask('snapshot-update', 'PUT', one, {'server_group_snapshot': {
            'name': 'weekly', 'description': None, 'properties': {'ticket': '4712'}}})
        self.conductor.fail_next = {'code': 'pause_too_long', 'member': made['members'][1]['id'],
                                    'message': 'Member web-2 was paused for 231.5 ms; the limit '
                                               'is 100 ms.', 'host': 'host1'}
        self.make_available(group=group, name='failed')
        self.ask('snapshot-list', 'GET', f'{SNAPSHOTS}?limit=2')
        self.ask('snapshot-list-detail', 'GET', f'{SNAPSHOTS}/detail?status=error&limit=1')
        self.ask('snapshot-check', 'POST', f'/os-server-groups/{group}/snapshot-check',
                 {'snapshot_check': {'gate': 'auto'}})
        self.conductor.warnings = [{
            'member': made['members'][0]['id'], 'name': 'web-1', 'host': 'host1',
            'device': 'clock', 'cause': 'it lags by 3:12:05: the guest has no agent',
            'remedy': 'have it set in the guest'}]
        for action, body in (('verify', None), ('restore', {
                'ignore_new_members': True, 'keep_present': 'before-restore'})):
            self.ask(f'snapshot-{action}', 'POST', one + '/action', {action: body}, 202)
            for _ in range(5):
                self.api.get(one)
        self.ask('snapshot-show-restored', 'GET', one)
        self.ask('snapshot-reset-status', 'POST', one + '/action',
                 {'reset_status': {'status': 'error'}}, 202, self.admin)
        self.ask('snapshot-abort', 'POST',
                 f'{SNAPSHOTS}/{self.make_snapshot(group)["id"]}/action', {'abort': None}, 202)
        self.ask('snapshot-delete', 'DELETE', one, status=202)
        self.ask('fault', 'GET', f'{SNAPSHOTS}/{group}', status=404)
        self.ask('version', 'GET', SNAPSHOTS + '/version')


class ReferenceTest(base.ApiTestCase):

    def setUp(self):
        super().setUp()
        self.text = (DOC / 'README.md').read_text()

    def test_each_route_has_its_heading(self):
        routes = {(condition, route.routepath)
                  for route in router.Router(None).map.matchlist
                  for condition in route.conditions['method']
                  if 'project_id' not in route.routepath}

        headings = set(re.findall(r'^## `([A-Z]+) (/[^`?]*)', self.text, re.M))

        assert headings == routes

    def test_each_sample_is_shown_and_each_shown_is_there(self):
        shown = set(re.findall(r'\(samples/([^)]+)\)', self.text))

        assert shown == {each.name for each in SAMPLES.iterdir()}

    def test_each_rule_status_and_choice_is_named(self):
        words = [rule.name.removeprefix('hotsnap:server_group_snapshots:')
                 for rule in list_rules()]
        words += [*rpcapi.STATUSES, *rpcapi.GATES, *rpcapi.DISKS, *rpcapi.ACTION_STATUSES]

        assert [each for each in words if f'`{each}`' not in self.text] == []
        assert f'Version {versions.VERSION} of our own' in self.text
