"""The command that calls the operators at random."""
from __future__ import annotations

from tools.dev import fuzz_ops


def test_command(capsys):
    assert fuzz_ops.main(['--legal', '8', '--illegal', '8', '--seed', '3']) == 0
    assert '8 legal and 8 illegal calls of seed 3' in capsys.readouterr().out
    assert fuzz_ops.main(['--only', 'illegal:dcnv4:5']) == 0
    assert '-> right' in capsys.readouterr().out
    assert fuzz_ops.main(['--only', 'illegal:dcnv5:5']) == 2
