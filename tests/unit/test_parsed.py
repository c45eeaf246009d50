# SPDX-License-Identifier: Apache-2.0
"""XML out of a store, which others may have written, costs no more than its length."""

import xml.etree.ElementTree as ET

import pytest

from hotsnap_nova.virt import domain

_GROWS = ''.join(f'<!ENTITY e{number} "{f"&e{number - 1};" * 10}">' for number in range(1, 10))


def test_entities_that_grow_without_bound_are_refused():
    with pytest.raises(ET.ParseError, match='amplification'):
        domain.parsed(f'<!DOCTYPE domain [<!ENTITY e0 "{"x" * 10}">{_GROWS}]>'
                      '<domain><name>&e9;</name></domain>')


def test_no_file_is_read_for_an_entity(tmp_path):
    (tmp_path / 'secret').write_text('secret')

    with pytest.raises(ET.ParseError, match='undefined entity'):
        domain.parsed(f'<!DOCTYPE domain [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]>'
                      '<domain><name>&e;</name></domain>')
