"""Photographs and handwritten digits: whose they are, and which split may use them."""
from __future__ import annotations

import numpy as np
import pytest

from tools.mini_data import sources
from tools.mini_data.sources import LICENSES, PHOTOS, digit_indices, digit_picture, photo_names


def test_splits_share_no_photograph() -> None:
    train, val = photo_names('train'), photo_names('val')
    assert set(train) | set(val) == set(PHOTOS) and not set(train) & set(val)
    assert list(train) == sorted(train) and list(val) == sorted(val)
    files = [(photo.package, photo.file) for photo in PHOTOS.values()]
    assert len(set(files)) == len(files)
    assert all(name == photo.name for name, photo in PHOTOS.items())


def test_photographs_differ_also_in_their_pixels() -> None:
    small = {name: np.asarray(sources.load_photo(name).resize((16, 16)), float) for name in PHOTOS}
    for train in photo_names('train'):
        for val in photo_names('val'):
            assert np.abs(small[train] - small[val]).mean() > 10


@pytest.mark.parametrize('name', PHOTOS)
def test_photographs_are_there_in_colour_and_large_enough(name: str) -> None:
    photo = sources.load_photo(name)
    assert photo.mode == 'RGB' and min(photo.size) >= 0.8 * 192
    assert PHOTOS[name].license in LICENSES


@pytest.mark.parametrize('digit', range(10))
def test_last_fifth_of_every_digit_is_kept_for_val(digit: int) -> None:
    train, val = digit_indices(digit, 'train'), digit_indices(digit, 'val')
    assert not set(train) & set(val)
    assert max(train) < min(val)
    assert list(train) == sorted(train) and list(val) == sorted(val)
    assert len(val) / (len(train) + len(val)) == pytest.approx(0.2, abs=0.003)


def test_no_sample_belongs_to_two_digits() -> None:
    every = [index for digit in range(10) for split in ('train', 'val')
             for index in digit_indices(digit, split)]
    assert sorted(every) == list(range(1797))


def test_ink_of_digits_is_bright() -> None:
    pictures = np.stack([digit_picture(index) for index in range(0, 1797, 7)])
    assert pictures.shape[1:] == (8, 8) and pictures.dtype == np.uint8
    assert pictures.max() == 255 and pictures.min() == 0
    # Digits are written in the middle; the columns at the border are ground.
    assert pictures[:, :, 3:5].mean() > 5 * pictures[:, :, [0, -1]].mean()


@pytest.mark.parametrize(('name', 'distribution'), [
    ('coffee', 'scikit-image'), ('china', 'scikit-learn')])
def test_a_missing_package_is_named_with_its_distribution(
        name: str, distribution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, 'find_spec', lambda package: None)
    with pytest.raises(Exception, match=f'{distribution}.*not installed.*pip install '
                                        f'{distribution}'):
        sources.load_photo.__wrapped__(name)


def test_a_package_without_the_photograph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = sources.Photo('moved', 'skimage', 'data/moved.png', 'train', sources.CC0)
    monkeypatch.setitem(PHOTOS, 'moved', moved)
    with pytest.raises(Exception, match='scikit-image.*lacks data/moved.png'):
        sources.load_photo('moved')


def test_digits_need_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, 'find_spec', lambda package: None)
    with pytest.raises(Exception, match='scikit-learn.*not installed'):
        sources._digits.__wrapped__()
