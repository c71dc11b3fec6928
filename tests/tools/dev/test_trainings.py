"""What the tools that train share: the table, and a tool that fails. More in test_learn.py."""
from __future__ import annotations

import pytest

from tools.dev import trainings


def test_failing_tool_ends_the_run_with_its_output(tmp_path, capsys):
    with pytest.raises(SystemExit, match='failed with exit code 2'):
        trainings.run(['tools/train.py', 'no_such_config.py'], tmp_path / 'log', 'x')
    assert 'no_such_config.py' in capsys.readouterr().err


def test_the_table_is_markdown():
    assert trainings.table([('a', 'bcd'), ('ef', 'g')]).splitlines() == [
        '| a  | bcd |', '|----|-----|', '| ef | g   |']
