# SPDX-License-Identifier: Apache-2.0
#
# `make help` says what there is. Each target makes ready what it needs by itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CORE := .venv/core/bin/python
LAB := .venv/lab/bin/python
NOVA := .venv/nova/bin/python
CLOUD := .venv/cloud/bin/python
BIN := .venv/core/base/bin

# Those that wait first, so that others have the processors meanwhile and no worker is left alone
# with one at the end. More workers than two processors: half of the time these tests wait.
CORE_TESTS := tests/unit/conductor tests/unit/cmd tests/explore tests/property tests/unit \
    tests/protocol
# A skipped test proves nothing, and here everything a test may want is installed first.
PYTEST_OPTIONS := -q --no-skips
# ARGS="…" is handed on to demo, cloud, soak and bench, TESTS="…" narrows a test target.
ARGS ?=

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: lab-ready ## three guests: hot snapshot, kill -9, restore, verdict; then without the protocol
	$(LAB) -m tests.demo $(ARGS)

.PHONY: cloud
cloud: cloud-ready ## a real OpenStack with two compute hosts in a folder; as root
	$(CLOUD) -m tests.cloud up $(ARGS)

.PHONY: cloud-demo
cloud-demo: cloud-ready ## in it, a server group on two hosts: snapshot, kill -9, restore, verdict
	$(CLOUD) -m tests.cloud.demo $(ARGS)

.PHONY: cloud-down
cloud-down: cloud-ready ## remove it
	$(CLOUD) -m tests.cloud down

.PHONY: test
test: ## everything: lint, and test-core, -mutants, -nova, -functional, -crash-short, -cloud
	$(MAKE) lint
	$(MAKE) test-core
	$(MAKE) test-mutants
	$(MAKE) test-nova
	$(MAKE) test-functional
	$(MAKE) test-crash-short
	$(MAKE) test-cloud

.PHONY: test-core
test-core: core-ready ## what needs neither root nor QEMU: units, protocol, explorer, properties
	$(CORE) -m pytest $(PYTEST_OPTIONS) -n 5 --dist worksteal $(or $(TESTS),$(CORE_TESTS))

.PHONY: explore
explore: core-ready ## the explorers' long campaign, all states and a million random steps of each
	$(CORE) -m tests.explore $(ARGS)

.PHONY: test-mutants
test-mutants: core-ready ## each rule of the protocol broken on purpose, and caught
	$(CORE) -m pytest $(PYTEST_OPTIONS) -n 2 $(or $(TESTS),tests/mutants)

.PHONY: test-nova
test-nova: nova-ready ## Nova's API with ours in it, through Nova's own fixtures
	$(NOVA) -m pytest $(PYTEST_OPTIONS) -n 4 --dist worksteal $(or $(TESTS),tests/nova)

.PHONY: test-nova-driver
test-nova-driver: nova-ready ## Nova's own unit tests of its libvirt driver, run against ours
	$(NOVA) -m tests.novadriver

.PHONY: test-functional
test-functional: lab-ready ## real guests on real QEMU; as root
	$(LAB) -m pytest $(PYTEST_OPTIONS) $(or $(TESTS),tests/functional)

.PHONY: test-crash
test-crash: lab-ready ## everything killed at every step, and the table of it; hours, as root; ARGS="--jobs 3"
	$(LAB) -m tests.crash $(ARGS)

.PHONY: test-crash-short
test-crash-short: lab-ready ## one of each fault: the short form of test-crash; as root
	$(LAB) -m pytest $(PYTEST_OPTIONS) $(or $(TESTS),tests/crash)

.PHONY: test-cloud
test-cloud: cloud-ready ## end to end in a cloud, which is brought up unless it is; as root
	$(CLOUD) -m pytest $(PYTEST_OPTIONS) -m 'not long' $(or $(TESTS),tests/cloud_e2e)

.PHONY: test-cloud-long
test-cloud-long: cloud-ready ## the rest of it; some ten minutes, as root
	$(CLOUD) -m pytest $(PYTEST_OPTIONS) -m long $(or $(TESTS),tests/cloud_e2e)

.PHONY: test-crash-cloud
test-crash-cloud: cloud-ready ## everything killed at every step of a restore in a cloud; as test-crash
	$(CLOUD) -m tests.cloud.crash $(ARGS)

.PHONY: soak
soak: lab-ready ## long runs under load with each gate and the control; as root
	$(LAB) -m tests.soak $(ARGS)

.PHONY: bench-cloud
bench-cloud: cloud-ready ## a guest's pause through Nova and through hotsnap, in the cloud that is up
	$(CLOUD) -m tests.cloud.bench $(ARGS)

.PHONY: soak-cloud
soak-cloud: cloud-ready ## many group snapshots in the cloud that is up; dated JSON in results/
	$(CLOUD) -m tests.cloud.soak $(ARGS)

.PHONY: bench
bench: lab-ready ## pause, hold and their parts over memory sizes; as root
	$(LAB) -m tests.bench $(ARGS)

.PHONY: lint
lint: core-ready ## ruff, hacking, shellcheck, bashate, release notes, and which layer imports which
	$(BIN)/ruff check --quiet .
	$(CORE) -m flake8 hotsnap_nova tests setup.py
	$(BIN)/shellcheck $$(git ls-files | xargs -r grep -lE '^#!/bin/(ba)?sh' --)
	$(BIN)/shellcheck --shell bash devstack/settings
	$(BIN)/bashate --ignore E005,E006 --error E042 devstack/settings devstack/plugin.sh devstack/lib/*
	$(BIN)/reno -q lint
	$(CORE) -m pytest -q --no-header tests/unit/test_layers.py

.PHONY: docs
docs: core-ready ## RELEASENOTES.rst; samples of options and policies, in doc/build
	$(BIN)/reno -q report --output RELEASENOTES.rst .
	mkdir -p doc/build
	$(CORE) -m oslo_config.generator --config-file etc/config-generator.conf
	$(CORE) -c 'from oslo_policy import generator; generator.generate_sample()' \
	    --config-file etc/policy-generator.conf

.PHONY: clean
clean: ## remove what was built and run here; the shared cache stays
	rm -rf .venv build dist doc/build *.egg-info .hypothesis .ruff_cache .pytest_cache results \
	    AUTHORS ChangeLog RELEASENOTES.rst
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: core-ready
core-ready:
	@tools/setup core

.PHONY: lab-ready
lab-ready:
	@tools/setup lab

.PHONY: nova-ready
nova-ready:
	@tools/setup nova

.PHONY: cloud-ready
cloud-ready:
	@tools/setup cloud
