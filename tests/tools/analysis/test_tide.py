"""The tool that says what costs a detector its AP50."""
from __future__ import annotations

import json

import cv2
import pytest

from tests.mmdcn.analysis.test_tide import perfect, save
from tools.analysis import tide as tool


@pytest.fixture
def files(tmp_path):
    truth, found = perfect()
    found[0]['category_id'] = 2
    return [str(path) for path in save(tmp_path, truth, found)]


def test_figures_and_picture(files, tmp_path, capsys):
    out, picture = tmp_path / 'new' / 'tide.json', tmp_path / 'tide.png'
    assert tool.main(['--ann', files[0], '--predictions', files[1], '--iou-type', 'segm',
                      '--json', str(out), '--plot', str(picture)]) == 0
    errors = json.loads(out.read_text())
    assert list(errors) == ['AP50', 'cls', 'loc', 'both', 'dup', 'bkg', 'miss', 'fp', 'fn']
    assert errors['cls'] > 10 and errors['AP50'] + errors['cls'] == pytest.approx(100)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f'cls  {errors["cls"]:>8.2f}  wrong class'
    assert lines[-1].startswith('tide.py: 8 predictions, 4 images')
    drawn = cv2.imread(str(picture))
    # The bar of wrong classes is blue, that of duplicates absent.
    assert drawn.shape == (432, 840, 3) and (drawn == (180, 119, 31)).all(-1).sum() > 1000


@pytest.mark.parametrize(('options', 'words'), [
    (['--json', '{ann}'], '--json is not valid: got {ann}, which is the input'),
    (['--plot', 'x.txt'], '--plot is not valid: got x.txt, expected a name ending in .png'),
    (['--predictions', '{ann}'], '--predictions is not valid: {ann} holds a dict')])
def test_bad_input(files, tmp_path, capsys, options, words):
    argv = ['--ann', files[0], '--predictions', files[1],
            *(option.format(ann=files[0]) for option in options)]
    before = sorted(tmp_path.iterdir())
    assert tool.main(argv) == 2
    assert words.format(ann=files[0]) in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
