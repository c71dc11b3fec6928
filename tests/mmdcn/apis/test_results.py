"""Results are never written over an input or over the result of another input."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmdcn.apis.results import check_outputs, name_results, place_results
from mmdcn.errors import UserError


@pytest.mark.parametrize(('images', 'names'), [
    ({}, []),
    ({'photos/a.jpg': 'photos'}, ['a']),
    ({'photos/a/x.jpg': 'photos', 'photos/b/x.jpg': 'photos'}, ['a/x', 'b/x']),
    # files given one by one, and two folders
    ({'photos/a/x.jpg': 'photos/a', 'photos/b/x.jpg': 'photos/b', 'photos/b/y.jpg': 'photos/b'},
     ['a/x', 'b/x', 'y']),
    ({'a.png': '.', 'a.jpg': '.', 'b.jpg': '.'}, ['a.png', 'a.jpg', 'b']),
    ({'p/a.png': 'p', 'p/a.jpg': 'p', 'q/a.jpg': 'q'}, ['a.png', 'p/a', 'q/a']),
    ({'a.png': '.', 'a.jpg': '.', 'a.png.jpg': '.'}, ['a', 'a.jpg', 'a.png.jpg']),
    # one folder cannot hold both names on every file system
    ({'a.jpg': '.', 'A.jpg': '.'}, ['a.jpg_1', 'A.jpg_2']),
    ({'p/a.jpg': 'p', 'p/a.png': 'p', 'q/b.jpg': 'q'}, ['a.jpg', 'a.png', 'b']),
    ({'a.jpg': '.', 'A.jpg': '.', 'A.jpg_2.jpg': '.'}, ['a.jpg_1', 'A.jpg_2', 'A.jpg_2.jpg']),
    ({'../x/a.jpg': '../x', os.path.abspath('../y/a.jpg'): '../y'}, ['x/a', 'y/a']),
    ({'.hidden.jpg': '.', 'no_suffix': '.'}, ['.hidden', 'no_suffix']),
])
def test_names_keep_folders_and_are_never_alike(images: dict[str, str], names: list[str]) -> None:
    assert list(name_results(images).values()) == names
    assert list(name_results(images)) == list(images)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two photos, a link to their folder, and results elsewhere."""
    monkeypatch.chdir(tmp_path)
    for name in ('photos/a.png', 'photos/deep/b.jpg', 'out/a.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / 'link').symlink_to('photos')
    return tmp_path


@pytest.mark.parametrize(('out_dir', 'beside'), [
    ('photos', 'photos/a.png'), ('./photos/../photos', 'photos/a.png'), ('link', 'photos/a.png'),
    ('{}/photos', 'photos/a.png'), ('out', ''), ('photos/out', ''), ('new/out', ''), ('.', '')])
def test_no_results_beside_images(photos: Path, out_dir: str, beside: str) -> None:
    images = {'photos/a.png': 'photos', 'photos/deep/b.jpg': 'photos'}
    out_dir = out_dir.format(photos)
    if beside:
        with pytest.raises(UserError, match=f'^out_dir is not valid: .*beside the image {beside}'):
            place_results(images, out_dir)
    else:
        assert place_results(images, out_dir) == {
            'photos/a.png': f'{out_dir}/a', 'photos/deep/b.jpg': f'{out_dir}/deep/b'}


def test_the_folder_of_another_image_is_no_place_either(photos: Path) -> None:
    with pytest.raises(UserError, match='link/a.* would lie beside the image photos/deep/b.jpg'):
        (photos / 'link').unlink()
        (photos / 'link').symlink_to('photos/deep')
        place_results({'photos/a.png': 'photos', 'photos/deep/b.jpg': 'photos'}, 'link')


@pytest.mark.parametrize(('outputs', 'words'), [
    ({'out': 'out/a.jpg'}, ''), ({'out': 'new/a.json'}, ''), ({'out': None, 'plot': None}, ''),
    ({'out': 'photos/a.png'}, 'out is not valid: .*which is the input photos/a.png'),
    ({'json': None, 'out': Path('link/a.png')}, 'out is not valid: .*which is the input'),
    ({'out': 'hard.png'}, 'which is the input'),
    ({'out': 'photos/../photos'}, 'out is not valid: .* is a folder'),
    ({'out': 'out/a.jpg/b'}, 'out is not valid: .*a.jpg is a file, expected a folder'),
    ({'json': 'x.json', 'plot': './x.json'}, 'plot is not valid: got ./x.json, as for `json`'),
    ({'json': 'x.json', 'plot': 'X.json'}, 'plot is not valid'),
    ({'json': 'link/x', 'plot': 'photos/x'}, 'plot is not valid'),
    ({'json': 'x.json', 'plot': 'x.png'}, ''),
])
def test_outputs_are_no_inputs_and_not_one_another(photos: Path, outputs: dict[str, object],
                                                   words: str) -> None:
    os.link('photos/a.png', 'hard.png')
    inputs = ['photos/a.png', 'absent.pth', '']
    if words:
        with pytest.raises(UserError, match=words):
            check_outputs(outputs, inputs)
    else:
        check_outputs(outputs, inputs)
    assert not (photos / 'new').exists()
