"""Set folders are whole or absent: their identity, their digest, what may be replaced."""
from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tools.mini_data import store
from tools.mini_data.store import MANIFEST, Job, check, digest, identity, scaled, written_aside

WANTED = identity('ade', 3, 0.5)


def make_set(folder: Path, **changes: object) -> dict:
    """A complete set of two files; gives its manifest."""
    (folder / 'images').mkdir(parents=True)
    (folder / 'images' / 'a.jpg').write_bytes(b'picture')
    (folder / 'labels.txt').write_text('1 circle\n')
    files, content = digest(folder)
    manifest = WANTED | {'files': files, 'digest': content} | changes
    store.write_json(folder / MANIFEST, manifest)
    return manifest


def test_identity_is_all_that_decides_the_content() -> None:
    first = identity('coco', 1, 0.5)
    assert first == identity('coco', 1, 0.5)
    for other in (identity('ade', 1, 0.5), identity('coco', 2, 0.5), identity('coco', 1, 0.6)):
        assert other != first and other.keys() == first.keys()


def test_pictures_draw_from_sources_of_their_own() -> None:
    jobs = [Job(*values) for values in itertools.product(
        ('coco', 'imagenet', 'ade'), (0, 1, 2 ** 32), ('train', 'val'), (0, 1, 7))]
    drawn = {job: job.rng().random() for job in jobs}
    assert len(set(drawn.values())) == len(jobs)
    assert all(Job('ade', 1, 'val', 7).rng().random() == drawn[Job('ade', 1, 'val', 7)]
               for _ in range(2))


@pytest.mark.parametrize(('count', 'scale', 'expected'), [
    (1600, 1, 1600), (150, 0.1, 15), (120, 0.001, 1), (50, 1e-9, 1), (10, 0.26, 3),
    (50, 100, 5000)])
def test_scaled_counts_are_at_least_one(count: int, scale: float, expected: int) -> None:
    assert scaled(count, scale) == expected


def test_digest_changes_with_any_byte_name_or_place(tmp_path: Path) -> None:
    make_set(tmp_path)
    whole = digest(tmp_path)
    assert whole[0] == 2
    picture, seen = tmp_path / 'images' / 'a.jpg', {whole[1]}
    for data in (b'Picture', b'picturE', b'picture ', b'pictur', b''):
        picture.write_bytes(data)
        seen.add(digest(tmp_path)[1])
    picture.write_bytes(b'picture')
    assert digest(tmp_path) == whole
    for place in (tmp_path / 'a.jpg', tmp_path / 'images' / 'b.jpg'):
        picture = picture.rename(place)
        seen.add(digest(tmp_path)[1])
    (tmp_path / 'more').write_text('')
    seen.add(digest(tmp_path)[1])
    assert len(seen) == 1 + 5 + 2 + 1 and digest(tmp_path)[0] == 3


def test_contents_that_change_places_change_the_digest(tmp_path: Path) -> None:
    for name in ('a', 'b'):
        (tmp_path / name).write_text(name)
    before = digest(tmp_path)
    for name, text in (('a', 'b'), ('b', 'a')):
        (tmp_path / name).write_text(text)
    assert digest(tmp_path) != before


def test_digest_leaves_out_the_manifest_at_the_top_alone(tmp_path: Path) -> None:
    make_set(tmp_path)
    before = digest(tmp_path)
    (tmp_path / MANIFEST).write_text('changed')
    assert digest(tmp_path) == before
    (tmp_path / 'images' / MANIFEST).write_text('not the manifest')
    assert digest(tmp_path) != before


@pytest.mark.parametrize('overwrite', [False, True])
def test_nothing_and_an_empty_folder_are_free(tmp_path: Path, overwrite: bool) -> None:
    assert check(tmp_path / 'none', WANTED, overwrite) is None
    assert check(tmp_path, WANTED, overwrite) is None


def test_a_complete_set_is_kept_or_replaced_on_request(tmp_path: Path) -> None:
    manifest = make_set(tmp_path)
    assert check(tmp_path, WANTED, overwrite=False) == manifest
    assert check(tmp_path, WANTED, overwrite=True) is None


@pytest.mark.parametrize(('wanted', 'words'), [
    (identity('ade', 4, 0.5), 'seed 3 instead of 4'),
    (identity('ade', 3, 1.0), 'scale 0.5 instead of 1.0'),
    (identity('coco', 3, 0.5), 'set ade instead of coco'),
    (WANTED | {'version': 1000}, r'version \d+ instead of 1000'),
    (identity('ade', 4, 1.0), 'seed 3 instead of 4, scale 0.5 instead of 1.0')])
def test_another_set_is_refused_until_overwrite(tmp_path: Path, wanted: dict, words: str) -> None:
    make_set(tmp_path)
    with pytest.raises(ValueError, match=f'{words}.*--overwrite'):
        check(tmp_path, wanted, overwrite=False)
    assert check(tmp_path, wanted, overwrite=True) is None


@pytest.mark.parametrize('change', [
    lambda folder: (folder / 'labels.txt').write_text('1 Circle\n'),
    lambda folder: (folder / 'labels.txt').unlink(),
    lambda folder: (folder / 'images' / 'b.jpg').write_bytes(b''),
    lambda folder: (folder / 'labels.txt').rename(folder / 'names.txt')],
    ids=['changed', 'lost', 'added', 'renamed'])
def test_a_set_that_is_no_longer_whole_is_refused(tmp_path: Path, change) -> None:
    make_set(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match='changed, added or lost'):
        check(tmp_path, WANTED, overwrite=False)
    if digest(tmp_path)[0] == 3:  # the added file is not ours to remove
        with pytest.raises(ValueError, match='got 3 files, expected the 2 .* move the others'):
            check(tmp_path, WANTED, overwrite=True)
    else:
        assert check(tmp_path, WANTED, overwrite=True) is None


@pytest.mark.parametrize('manifest', [
    None, '', '{"generator": "make_mini_data"', '[]', '{}', '"make_mini_data"',
    '{"generator": "another tool"}', '\udcff'])
@pytest.mark.parametrize('overwrite', [False, True])
def test_files_of_others_are_never_replaced(tmp_path: Path, manifest: str | None,
                                            overwrite: bool) -> None:
    (tmp_path / 'mine.jpg').write_bytes(b'mine')
    if manifest is not None:
        (tmp_path / MANIFEST).write_bytes(manifest.encode(errors='surrogateescape'))
    with pytest.raises(ValueError, match='files that this tool did not write.*--root'):
        check(tmp_path, WANTED, overwrite)


@pytest.mark.parametrize('kind', ['file', 'dangling link'])
def test_what_is_no_folder_is_of_others(tmp_path: Path, kind: str) -> None:
    place = tmp_path / 'ade'
    if kind == 'file':
        place.write_text('')
    else:
        place.symlink_to(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='did not write'):
        check(place, WANTED, overwrite=True)


def test_json_is_the_same_every_time(tmp_path: Path) -> None:
    content = {'b': [1, 2.5, None], 'a': {'x': 'é'}}
    for name in ('1', '2'):
        store.write_json(tmp_path / name, content)
    assert (tmp_path / '1').read_bytes() == (tmp_path / '2').read_bytes()
    assert (tmp_path / '1').read_bytes().endswith(b'}\n')
    assert json.loads((tmp_path / '1').read_text('utf-8')) == content


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*'))


def test_a_set_takes_its_place_at_the_end(tmp_path: Path) -> None:
    place = tmp_path / 'not' / 'there' / 'ade'
    with written_aside(place) as aside:
        (aside / 'new').write_text('new')
        assert not place.exists() and aside.parent == place.parent
    assert names(tmp_path) == ['not', 'not/there', 'not/there/ade', 'not/there/ade/new']


def test_the_old_set_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    make_set(tmp_path / 'ade')
    with written_aside(tmp_path / 'ade') as aside:
        (aside / 'new').write_text('new')
        assert (tmp_path / 'ade' / 'labels.txt').is_file()
    assert names(tmp_path) == ['ade', 'ade/new']


@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit, OSError, MemoryError])
@pytest.mark.parametrize('old', [False, True])
def test_failures_leave_what_was_there(tmp_path: Path, error: type[BaseException],
                                       old: bool) -> None:
    if old:
        make_set(tmp_path / 'ade')
    before = names(tmp_path)
    with pytest.raises(error), written_aside(tmp_path / 'ade') as aside:
        (aside / 'folder').mkdir()
        (aside / 'folder' / 'half').write_text('half')
        raise error
    assert names(tmp_path) == before


def test_the_old_set_comes_back_where_the_new_one_cannot_move(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_set(tmp_path / 'ade')
    before, rename = names(tmp_path), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if 'partial' in self.name:
            raise OSError('disk')
        return rename(self, target)
    monkeypatch.setattr(Path, 'rename', failing)
    with pytest.raises(OSError, match='disk'), written_aside(tmp_path / 'ade') as aside:
        (aside / 'new').write_text('new')
    assert names(tmp_path) == before
    assert check(tmp_path / 'ade', WANTED, overwrite=False)


def test_a_second_process_does_not_write_into_the_same_folder(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with written_aside(tmp_path / 'ade') as first:
        monkeypatch.setattr(store.os, 'getpid', lambda: -1)
        with written_aside(tmp_path / 'ade') as second:
            assert first != second
        monkeypatch.undo()
        assert first.is_dir() and not any(first.iterdir())
