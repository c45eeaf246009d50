# SPDX-License-Identifier: Apache-2.0
"""Nova's own unit tests of its libvirt driver, run against ours: ``make test-nova-driver``."""
