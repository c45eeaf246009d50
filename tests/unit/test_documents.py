# SPDX-License-Identifier: Apache-2.0
"""Links between the documents lead somewhere."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [ROOT / 'README.md', *sorted(ROOT.glob('doc/**/*.md'))]
LINKS = [(document, link) for document in DOCUMENTS
         for link in re.findall(r'\]\(([^)\s]+)\)', document.read_text())
         if '://' not in link]


def anchors(path):
    """Of a document's headings, as they are made from their words."""
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
            for heading in re.findall(r'^#+ (.+)$', path.read_text(), re.M)}


@pytest.mark.parametrize(('document', 'link'), LINKS,
                         ids=lambda value: getattr(value, 'name', value))
def test_a_link_leads_somewhere(document, link):
    path, _, anchor = link.partition('#')
    target = document.parent / path if path else document

    assert target.exists()
    assert not anchor or anchor in anchors(target)


def test_every_document_can_be_found_from_the_index():
    named = {(document.parent / link.partition('#')[0]).resolve()
             for document, link in LINKS if document.name == 'index.md'}

    assert {path for path in DOCUMENTS if path.parent.name == 'doc'} - named == {
        ROOT / 'doc' / 'index.md'}
