"""The pages of docs/families are what sheets and networks say now."""

import re

import pytest
from scripts.write_family_pages import PAGES, pages

from taxonet.sheets import families, load_sheet


@pytest.fixture(scope="module")
def written():
    return pages()


def test_no_page_is_stale(written):
    found = {path.name: path.read_text("utf-8") for path in PAGES.iterdir()}
    stale = sorted(name for name in written.keys() | found.keys() if written.get(name) != found.get(name))
    assert not stale, "run `python -m scripts.write_family_pages`"


@pytest.mark.parametrize("family", families())
def test_a_page_tells_the_idea_in_two_paragraphs_and_every_variant(family, written):
    sheet, page = load_sheet(family), written[f"{family}.md"]
    assert len(sheet.idea.split("\n\n")) == 2
    rows = re.findall(r"^\| `(\w+)` \| \d+ \| ([\d,]+) \|", page, re.MULTILINE)
    assert rows == [(facts.name, f"{facts.params:,}") for facts in sheet.variants.values()]
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+\.svg)\)", page)
    assert pictures
    assert all(picture in written for picture in pictures)
