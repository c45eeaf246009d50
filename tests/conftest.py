# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: markers by folder, and no silent skips where asked."""

import pathlib

import pytest

HERE = pathlib.Path(__file__).parent


def pytest_addoption(parser):
    parser.addoption('--no-skips', action='store_true',
                     help='a skipped test fails the run: it proved nothing')


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE / 'functional' in item.path.parents:
            item.add_marker(pytest.mark.functional)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """With --no-skips, turn a run with skips into a failed one."""
    reporter = session.config.pluginmanager.get_plugin('terminalreporter')
    if session.config.getoption('--no-skips') and reporter and reporter.stats.get('skipped'):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption('--no-skips') and terminalreporter.stats.get('skipped'):
        terminalreporter.line('--no-skips: the skipped tests fail this run', red=True)
