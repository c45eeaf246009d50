# SPDX-License-Identifier: Apache-2.0
"""Who may do what, by Nova's own enforcer."""

import itertools

import nova.policy
from nova.tests import fixtures as nova_fixtures
from oslo_policy import generator
from oslo_policy import policy as oslo_policy

from hotsnap_nova import policies
from hotsnap_nova.policies import snapshots as rules
from tests.nova import base
from tests.nova.base import SNAPSHOTS


class WhoMayTest(base.ApiTestCase):

    def statuses(self, ask):
        """Of each user in turn, on a snapshot of its own each."""
        found = {}
        for name in ('api', 'reader', 'admin', 'far_admin', 'stranger', 'nobody'):
            found[name] = ask(getattr(self, name)).status_code
        return found

    def on_one(self, method, suffix='', body=None, state='available'):
        group = self.make_group()

        def ask(client):
            made = (self.make_available if state == 'available' else self.make_snapshot)(
                group=group)
            return client.request(method, f'{SNAPSHOTS}/{made["id"]}{suffix}', body)
        return self.statuses(ask)

    def test_readers_look_members_act_admins_do_all_and_strangers_find_nothing(self):
        members = {'api': 202, 'reader': 403, 'admin': 202, 'far_admin': 202, 'stranger': 404,
                   'nobody': 403}
        admins = members | {'api': 403}
        readers = {'api': 200, 'reader': 200, 'admin': 200, 'far_admin': 200, 'stranger': 404,
                   'nobody': 403}
        changed = {'server_group_snapshot': {'name': 'new'}}

        assert self.on_one('GET') == readers
        assert self.on_one('PUT', body=changed) == readers | {'reader': 403}
        assert self.on_one('DELETE') == members
        assert self.on_one('DELETE', '?force=true') == admins
        for action in ('restore', 'verify'):
            assert self.on_one('POST', '/action', {action: None}) == members, action
        assert self.on_one('POST', '/action', {'abort': None}, state='creating') == members
        assert self.on_one('POST', '/action', {'reset_status': {'status': 'error'}}) == admins

    def test_groups_likewise(self):
        group = self.make_group()
        wanted = {'server_group_snapshot': {'server_group_id': group}}
        check = f'/os-server-groups/{group}/snapshot-check'
        expected = {'api': 202, 'reader': 403, 'admin': 202, 'far_admin': 202, 'stranger': 404,
                    'nobody': 403}

        assert self.statuses(lambda client: client.post(SNAPSHOTS, wanted)) == expected
        assert self.statuses(lambda client: client.post(check, {'snapshot_check': None})) == {
            name: 200 if status == 202 else status for name, status in expected.items()}

    def test_lists_likewise(self):
        own = self.statuses(lambda client: client.get(SNAPSHOTS))
        every = self.statuses(lambda client: client.get(SNAPSHOTS + '/detail?all_projects=1'))

        assert own == {'api': 200, 'reader': 200, 'admin': 200, 'far_admin': 200,
                       'stranger': 200, 'nobody': 403}
        assert every == {'api': 403, 'reader': 403, 'admin': 200, 'far_admin': 200,
                         'stranger': 403, 'nobody': 403}

    def test_what_is_refused_changes_nothing(self):
        made = self.make_available()
        before = len(self.conductor.calls)

        self.reader.delete(f'{SNAPSHOTS}/{made["id"]}')
        self.stranger.post(f'{SNAPSHOTS}/{made["id"]}/action', {'restore': None})

        assert {call[0] for call in self.conductor.calls[before:]} == {'get'}


class EnforcerTest(base.ApiTestCase):

    def test_rules_outlive_a_reset_of_novas_enforcer(self):
        before = self.reader.get(SNAPSHOTS).status_code
        nova.policy.reset()

        after = self.reader.get(SNAPSHOTS).status_code
        nova.policy.reset()
        refused = self.nobody.get(SNAPSHOTS).status_code

        assert (before, after, refused) == (200, 200, 403)

    def test_novas_rules_stay_as_they_are(self):
        nova.policy.init()
        before = {name: str(rule) for name, rule in nova.policy._ENFORCER.rules.items()}

        self.api.get(SNAPSHOTS)

        after = {name: str(rule) for name, rule in nova.policy._ENFORCER.rules.items()}
        assert set(after) - set(before) == {each.name for each in policies.list_rules()}
        assert {name: after[name] for name in before} == before

    def test_registering_never_changes_a_table_that_others_may_be_walking_through(self):
        nova.policy.reset()
        nova.policy.init()
        walking = iter(nova.policy._ENFORCER.registered_rules)
        next(walking)

        self.api.get(SNAPSHOTS)

        for _ in itertools.islice(walking, 3):
            pass    # a RuntimeError, if the table had grown

    def test_the_operators_policy_file_rules(self):
        self.useFixture(nova_fixtures.OverridePolicyFixture(
            rules_in_file={rules.INDEX: '!', rules.SHOW: 'role:other'}))
        made = self.make_available()

        assert self.api.get(SNAPSHOTS).status_code == 403
        assert self.nobody.get(f'{SNAPSHOTS}/{made["id"]}').status_code == 200

    def test_each_rule_tells_what_it_is_about(self):
        for rule in policies.list_rules():
            assert isinstance(rule, oslo_policy.DocumentedRuleDefault)
            assert rule.scope_types == ['project']
            assert rule.operations

    def test_rules_reach_the_sample_generator_by_their_entry_point(self):
        found = generator.get_policies_dict(['hotsnap_nova'])['hotsnap_nova']

        assert {each.name for each in found} == {each.name for each in policies.list_rules()}
