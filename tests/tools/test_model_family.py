"""The printed family: published parameters as in the paper's table."""
from __future__ import annotations

import pytest

from tools import model_family


def test_table_shows_rule_and_published_sizes(capsys: pytest.CaptureFixture) -> None:
    assert model_family.main([]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.count('|') == 2]
    rows = {line.split()[0]: line.split('|') for line in lines[2:]}
    assert list(rows) == ['tiny', 'small', 'base', 'large', 'xlarge', 'huge']
    published = {name: float(row[2].split()[3]) for name, row in rows.items()}
    assert published == pytest.approx(
        dict(tiny=29.9, small=50.1, base=97.5, large=223.3, xlarge=334.8, huge=1089.6))
    assert rows['tiny'][1].split() == rows['tiny'][2].split()
    assert rows['base'][1].split()[:3] == ['112', '16', '5-5-20-5']
