# SPDX-License-Identifier: Apache-2.0
"""The samples that operators begin with: every option and rule, and nothing of this machine."""

import configparser
import pathlib
import re
import socket
import subprocess
import sys

import pytest
import yaml

from hotsnap_nova import conf, policies

ROOT = pathlib.Path(__file__).parents[2]
OPTIONS = [option for _group, options in conf.list_opts() for option in options]
RULES = policies.list_rules()


def generate(path, program, settings):
    """What `make docs` writes."""
    subprocess.run([sys.executable, *program, '--config-file', f'etc/{settings}',
                    '--output-file', path], cwd=ROOT, check=True, capture_output=True)
    return path.read_text()


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    return generate(tmp_path_factory.mktemp('samples') / 'conf',
                    ['-m', 'oslo_config.generator'], 'config-generator.conf')


@pytest.fixture(scope='module')
def rules(tmp_path_factory):
    return generate(
        tmp_path_factory.mktemp('samples') / 'policy',
        ['-c', 'from oslo_policy import generator; generator.generate_sample()'],
        'policy-generator.conf')


@pytest.mark.parametrize('option', OPTIONS, ids=lambda option: option.name)
def test_every_option_is_explained_and_has_its_default(option, options):
    assert re.search(rf'^#{option.dest} = ', options, re.M)
    assert option.help.endswith('.')


def test_a_sample_with_every_option_taken_as_it_is_can_be_read(options):
    parsed = configparser.ConfigParser(interpolation=None, allow_no_value=True)
    parsed.read_string(re.sub(r'^#(\w+ = )', r'\1', options, flags=re.M))

    assert set(parsed[conf.GROUP]) == {option.dest for option in OPTIONS}


def test_no_default_is_of_the_machine_it_was_generated_on(options):
    assert socket.gethostname() not in options
    assert str(pathlib.Path.home()) not in options


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.name)
def test_every_rule_is_there_with_its_default(rule, rules):
    uncommented = yaml.safe_load(re.sub(r'^#(")', r'\1', rules, flags=re.M))

    assert uncommented[rule.name] == rule.check_str
