"""Scenes: what an object changes, what it may hide, what stays of it."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.mini_data import scenes
from tools.mini_data.scenes import Item, Scene, add_crowd, add_object, finish, new_scene
from tools.mini_data.silhouettes import SUPERSAMPLING as S
from tools.mini_data.sources import PHOTOS, load_photo


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def grey(width: int = 12, height: int = 10) -> Scene:
    top = np.zeros((height * S, width * S), np.uint8)
    return Scene(np.full((height, width, 3), 100, np.uint8), top, 'coffee',
                 (0, 0, width, height), False)


def filled(seed: int, count: int = 8) -> Scene:
    source = rng(seed)
    scene = new_scene(source, (160, 128), 'train')
    for _ in range(count):
        add_object(source, scene, 'circle' if seed % 2 else 'digit_2', 50, 'train')
    return scene


@pytest.mark.parametrize('size', [(160, 128), (64, 76), (192, 120), (150, 113)])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_backgrounds_are_crops_of_the_photographs_of_a_split(size: tuple[int, int],
                                                             split: str) -> None:
    photos = set()
    for seed in range(12):
        scene = new_scene(rng(seed), size, split)
        assert scene.image.shape == (size[1], size[0], 3) and scene.image.dtype == np.uint8
        assert scene.top.shape == (S * size[1], S * size[0]) and not scene.top.any()
        assert PHOTOS[scene.photo].split == split
        photo, (left, upper, right, lower) = load_photo(scene.photo), scene.crop
        assert 0 <= left < right <= photo.width and 0 <= upper < lower <= photo.height
        assert (right - left) / (lower - upper) == pytest.approx(size[0] / size[1], rel=0.03)
        photos.add(scene.photo)
    assert len(photos) >= 2


def test_the_picture_is_that_crop() -> None:
    flips = set()
    for seed in range(8):
        scene = new_scene(rng(seed), (80, 64), 'train')
        crop = load_photo(scene.photo).crop(scene.crop).resize((80, 64), Image.Resampling.BILINEAR)
        if scene.flipped:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        flips.add(scene.flipped)
        # Brightness and tint are changed, the rest is as it was.
        pairs = zip(np.asarray(crop, float).T, scene.image.astype(float).T, strict=True)
        assert min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs) > 0.95
    assert flips == {False, True}


def test_less_depth_is_flatter() -> None:
    deep, flat = (new_scene(rng(4), (80, 64), 'train', depth) for depth in (1.0, 0.25))
    assert flat.image.std((0, 1)) == pytest.approx(0.25 * deep.image.std((0, 1)), rel=0.1)
    assert flat.image.mean((0, 1)) == pytest.approx(deep.image.mean((0, 1)), abs=4)


def test_scenes_depend_on_the_seed_alone() -> None:
    first, again, other = filled(1), filled(1), filled(3)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.top, again.top)
    assert first.provenance() == again.provenance()
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize('seed', range(6))
def test_pixels_without_an_object_are_left_alone(seed: int) -> None:
    source = rng(seed)
    scene = new_scene(source, (160, 128), 'val')
    before = scene.image.copy()
    assert add_object(source, scene, 'star', 60, 'val')
    touched = scene.top.reshape(128, S, 160, S).any((1, 3))
    assert np.array_equal(scene.image[~touched], before[~touched])
    inside = scene.top.reshape(128, S, 160, S).all((1, 3))
    assert (scene.image[inside] != before[inside]).any(-1).mean() > 0.9


def test_items_are_numbered_in_the_order_they_were_added() -> None:
    scene = filled(2)
    assert len(scene.items) >= 2
    assert set(np.unique(scene.top)) == {*range(len(scene.items) + 1)}


@pytest.mark.parametrize('seed', range(12))
def test_enough_of_every_object_is_seen(seed: int) -> None:
    """What others cover leaves 80 % of it; the border of the picture alone may take a quarter."""
    scene = filled(seed, 14)
    shares = [(scene.top == number).sum() / item.area
              for number, item in enumerate(scene.items, 1)]
    assert len(shares) > 2 and min(shares) >= 0.75
    whole = [item.area for item in scene.items]
    assert min(whole) > 0 and max(shares) <= 1


def test_hiding_is_counted_by_samples() -> None:
    scene = grey()
    scene.items = [Item('circle', area=100), Item('star', area=50)]
    scene.top[:10, :10] = 1
    for lost, hides in ((0, False), (20, False), (21, True), (100, True)):
        assert scenes._hides_too_much(scene, np.array([500, lost]), own=3) == hides
    # An object may hide itself, as one of a crowd does.
    assert not scenes._hides_too_much(scene, np.array([0, 100]), own=1)


def test_objects_that_hide_too_much_leave_no_trace() -> None:
    scene = grey()
    square = np.ones((4 * S, 4 * S), bool)
    first, second = Item('square'), Item('square')
    assert scenes._stamp(rng(), scene, first, 1, square, (6, 5), 1.0)
    scene.items.append(first)
    image, top = scene.image.copy(), scene.top.copy()
    assert not scenes._stamp(rng(), scene, second, 2, square, (7, 5), 1.0)
    assert np.array_equal(scene.image, image) and np.array_equal(scene.top, top)
    assert second.area == 0
    # Beside it there is room.
    assert scenes._stamp(rng(), scene, second, 2, square, (2, 5), 1.0)
    assert (scene.top == 1).sum() == (scene.top == 2).sum() == square.sum() == second.area


@pytest.mark.parametrize(('middle', 'share'), [
    ((6, 5), 1), ((1, 5), 0.75), ((0, 5), 0.5), ((1, 1), 0.5625), ((12, 10), 0.25)])
def test_share_within_the_picture(middle: tuple[int, int], share: float) -> None:
    """A square of 4 x 4 pixels around points of a picture of 12 x 10."""
    square = np.ones((4 * S, 4 * S), bool)
    for least, fits in ((share, True), (share + 0.01, False)):
        scene, item = grey(), Item('square')
        assert scenes._stamp(rng(), scene, item, 1, square, middle, least) == fits
        assert (scene.top == 1).sum() == (share * square.sum() if fits else 0)
        # What counts as whole includes what lies beyond the border.
        assert item.area == (square.sum() if fits else 0)


def test_objects_without_room_change_nothing() -> None:
    scene = grey(20, 20)
    assert not add_object(rng(), scene, 'circle', 60, 'train', least=0.9)
    assert scene.items == [] and not scene.top.any() and (scene.image == 100).all()


def test_whole_objects_on_request() -> None:
    for seed in range(10):
        scene = grey(64, 64)
        assert add_object(rng(seed), scene, 'triangle', 40, 'train', least=1.0)
        assert (scene.top == 1).sum() == scene.items[0].area


def test_edges_blend_by_the_samples_of_a_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    black, white = np.zeros(3), np.full(3, 200.0)
    monkeypatch.setattr(scenes, '_colours', lambda source, behind: (black, white))
    monkeypatch.setattr(scenes, '_pattern', lambda source, side: np.ones((side, side)))
    scene, mask = grey(), np.zeros((2 * S, 2 * S), bool)
    mask[:S, :S] = True            # a whole pixel
    mask[:S, S:S + S // 2] = True  # half a pixel
    mask[S:S + 1, :1] = True       # one sample
    scenes._paint(rng(), scene, mask, left=3, upper=6)
    assert scene.image[6, 3:6, 0].tolist() == [200, 150, 100]
    assert scene.image[7, 3:6, 0].tolist() == [106, 100, 100]  # 100 + 100 / 16
    assert (np.delete(scene.image, (6, 7), 0) == 100).all()


def test_colours_behind_are_those_of_the_covered_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def colours(source: np.random.Generator, behind: np.ndarray) -> tuple:
        seen.append(behind.tolist())
        return np.zeros(3), np.zeros(3)
    monkeypatch.setattr(scenes, '_colours', colours)
    scene, mask = grey(), np.zeros((4 * S, 4 * S), bool)
    scene.image[4, 5] = (10, 20, 30)
    mask[0:S, S:2 * S] = True
    scenes._paint(rng(), scene, mask, left=4, upper=4)
    assert seen == [[10, 20, 30]]


@pytest.mark.parametrize('behind', [(0, 0, 0), (128, 128, 128), (255, 0, 128), (250, 250, 250)])
def test_objects_stand_out_from_what_is_behind(behind: tuple[int, int, int]) -> None:
    distances = []
    for seed in range(40):
        first, second = scenes._colours(rng(seed), np.array(behind, float))
        distances.append(min(np.linalg.norm(first - behind), np.linalg.norm(second - behind)))
        assert 20 <= np.linalg.norm(first - second) <= 90
    # Where no try is far enough, half of it will do.
    assert min(distances) >= 60 and np.median(distances) >= 120


def test_textures_blend_two_colours() -> None:
    plain, kinds = 0, set()
    for seed in range(200):
        pattern = scenes._pattern(rng(seed), 24)
        assert pattern.shape == (24, 24) and pattern.min() >= 0 and pattern.max() <= 1
        plain += pattern.std() == 0
        kinds.add(len(np.unique(pattern)) if len(np.unique(pattern)) < 3 else 3)
    assert 60 < plain < 140  # as often as all others together
    assert kinds == {1, 2, 3}


@pytest.mark.parametrize('name', ['circle', 'digit_4'])
def test_crowds_are_one_item(name: str) -> None:
    for seed in range(10):
        scene = new_scene(rng(seed), (160, 128), 'val')
        assert add_crowd(rng(seed), scene, name, 'val')
        item, = scene.items
        assert item.crowd and item.name == name and set(np.unique(scene.top)) == {0, 1}
        assert item.area == (scene.top == 1).sum()
        assert bool(item.digits) == name.startswith('digit_')
        # Later objects leave most of it to be seen.
        for _ in range(5):
            add_object(rng(seed), scene, 'square', 30, 'val')
        assert (scene.top == 1).sum() >= 0.8 * item.area


def test_a_crowd_that_finds_no_room_is_no_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, '_stamp', lambda *arguments: False)
    scene = grey(160, 128)
    assert not add_crowd(rng(), scene, 'star', 'train')
    assert scene.items == []


def test_provenance_lists_all_digits_in_order() -> None:
    scene = grey()
    scene.items = [Item('digit_4', [9, 3], crowd=True), Item('star'), Item('digit_2', [5])]
    assert scene.provenance() == {'photo': 'coffee', 'crop': [0, 0, 12, 10], 'flipped': False,
                                  'digits': [3, 5, 9]}


@pytest.mark.parametrize('level', [0, 3, 128, 252, 255])
def test_noise_is_small_and_does_not_wrap_around(level: int) -> None:
    scene = grey(40, 40)
    scene.image[:] = level
    noisy = finish(rng(), scene).astype(int)
    assert noisy.min() == max(level - 6, 0) and noisy.max() == min(level + 6, 255)
    assert (scene.image == level).all()


def test_pictures_are_written_as_the_same_bytes(tmp_path: Path) -> None:
    image = filled(1, 3).image
    for name in ('1.jpg', '2.jpg'):
        scenes.save_jpeg(image, str(tmp_path / name))
    assert (tmp_path / '1.jpg').read_bytes() == (tmp_path / '2.jpg').read_bytes()
    with Image.open(tmp_path / '1.jpg') as picture:
        assert picture.format == 'JPEG'
        assert np.abs(np.asarray(picture, float) - image).mean() < 4
