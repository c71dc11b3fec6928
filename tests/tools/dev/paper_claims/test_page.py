"""Page and tables from made-up results; the committed page is what the committed results give."""
from __future__ import annotations

import pytest

from mmdcn.errors import UserError
from tests.helpers import ROOT
from tests.tools.dev.paper_claims.made_up import records, results
from tools.dev import claims
from tools.dev.paper_claims import page
from tools.dev.paper_claims.trials import CLAIMS
from tools.dev.paper_claims.verdicts import AGREES, DISAGREES, UNDECIDED


def test_page_shows_every_claim_variant_and_verdict():
    text = page.render(results(), records())
    for claim in CLAIMS.values():
        assert f'\n## {claim.title}\n' in text and claim.says in text and claim.source in text
        for name in claim.variants:
            assert f'| {claim.label(name)} ' in text
        for comparison in claim.comparisons:
            assert f'| {comparison.says} ' in text
    assert f']({page.PICTURE})' in text
    comparisons = sum(len(claim.comparisons) for claim in CLAIMS.values())
    lines = [line for line in text.splitlines() if line.startswith('| ')]
    assert sum(line.rstrip(' |').endswith((AGREES, DISAGREES, UNDECIDED))
               for line in lines) == comparisons + 1  # the head of the counts


def test_verdicts_of_clear_differences():
    text = page.render(results(dcnv4=90.0, dcnv3=50.0), records())
    (line,) = [line for line in text.splitlines() if '| DCNv4 ends above DCNv3 ' in line]
    assert '| 90.0 against 50.0 ' in line and '| +40.0 ± ' in line and f'| {AGREES} ' in line
    text = page.render(results(dcnv4=50.0, dcnv3=90.0), records())
    (line,) = [line for line in text.splitlines() if '| DCNv4 ends above DCNv3 ' in line]
    assert f'| {DISAGREES} ' in line


def test_costs_are_compared_without_interval():
    (line,) = [line for line in page.render(results(), records()).splitlines()
               if '| they save parameters ' in line]
    assert '| 1 M against 1 M ' in line and '| +0.0 % ' in line and f'| {UNDECIDED} ' in line


def test_summary_has_both_tables():
    text = page.summary(results())
    assert text.count('|---') > 2 and '| operators ' in text and '| vit ' in text


def test_committed_page_is_up_to_date():
    try:
        text = page.render(*claims.read_results(ROOT / 'docs' / 'claims.json'))
    except UserError as error:
        pytest.skip(f'no results of all trainings yet: {error}')
    assert (ROOT / 'docs' / 'claims.md').read_text() == text, 'make claims'
