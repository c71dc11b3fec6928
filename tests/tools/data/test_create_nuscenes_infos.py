"""The tool that writes info files of nuScenes."""
from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet3d_custom')

from tests.nuscenes_sets import INFOS
from tools.data import create_nuscenes_infos


def test_files_are_written_and_named(tilted_root: Path, tmp_path: Path,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / 'set'
    root.mkdir()
    for name in ('maps', 'samples', 'v1.0-mini'):
        (root / name).symlink_to(tilted_root / name)
    for split in ('train', 'val'):
        shutil.copy(tilted_root / f'nuscenes_infos_{split}.pkl', root / f'mine_infos_{split}.pkl')
    arguments = [str(root), '--version', 'v1.0-mini', '--prefix', 'mine']
    assert create_nuscenes_infos.main(arguments) == 0
    out = capsys.readouterr().out
    for split in ('train', 'val'):
        path = root / f'mine_infos_temporal_{split}.pkl'
        assert f'{split}: {path}' in out
        assert path.read_bytes() == (tilted_root / INFOS.format(split)).read_bytes()


def test_bad_input_ends_in_code_2(tilted_root: Path, tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert create_nuscenes_infos.main([str(tilted_root)]) == 2
    error = capsys.readouterr().err
    assert 'it holds v1.0-mini: give that as --version' in error and 'Traceback' not in error
    assert create_nuscenes_infos.main([str(tmp_path / 'none'), '--version', 'v1.0-mini']) == 2
    assert 'lacks v1.0-mini/category.json' in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason='the superuser may write anywhere')
def test_folder_that_cannot_be_written(tilted_root: Path, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / 'set'
    shutil.copytree(tilted_root, root)
    root.chmod(0o500)
    assert create_nuscenes_infos.main([str(root), '--version', 'v1.0-mini']) == 2
    assert 'cannot write to' in capsys.readouterr().err


def test_help_does_not_import_mmdet3d() -> None:
    import subprocess
    code = ('import sys; from tools.data import create_nuscenes_infos as tool; '
            'tool.build_parser().format_help(); print("mmdet3d" in sys.modules)')
    got = subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parents[3],
                         capture_output=True, text=True, check=True)
    assert got.stdout.strip() == 'False'
