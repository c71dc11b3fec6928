"""Missing and cut-off files are found; whole files and other kinds pass."""
from __future__ import annotations

import errno
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdcn.data.files import check_files, image_problem, read_header, read_headers
from tests.mmdcn.data.images import Images, write_images


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.tif', '.webp'])
def test_image_cut_anywhere_is_found(tmp_path, suffix):
    path, = write_images(tmp_path, 1, suffix)
    whole = path.read_bytes()
    assert image_problem(str(path)) is None
    for share in (0.0, 0.001, 0.3, 0.6, 0.9):
        path.write_bytes(whole[:int(len(whole) * share)])
        assert image_problem(str(path)), f'{share} of the file'


def test_bytes_after_the_end_are_allowed(tmp_path):
    path, = write_images(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b'\0' * 10)
    assert image_problem(str(path)) is None


def test_text_under_an_image_name(tmp_path):
    (tmp_path / 'a.jpg').write_text('not found, sorry')
    assert 'cannot be decoded' in image_problem(str(tmp_path / 'a.jpg'))


def test_files_of_other_kinds_pass(tmp_path):
    (tmp_path / 'points.bin').write_bytes(b'123456789')
    assert image_problem(str(tmp_path / 'points.bin')) is None


def test_findings(tmp_path):
    paths = write_images(tmp_path / 'a', 6) + [tmp_path / 'none' / 'x.jpg']
    paths[1].unlink()
    paths[4].write_bytes(paths[4].read_bytes()[:300])
    findings = check_files(Images(paths + [paths[4]]))
    assert list(findings.missing) == [str(paths[1]), str(paths[6])]
    assert list(findings.damaged) == [str(paths[4])]
    assert findings.bad_samples == [1, 4, 6, 7] and findings.total == 8


def test_description_is_short(tmp_path):
    text = check_files(Images([tmp_path / f'{i}.jpg' for i in range(30)])).describe()
    assert len(text.splitlines()) == 6 and text.endswith('and 25 more')


def test_remote_paths_are_left_alone():
    assert not check_files(Images(['s3://bucket/1.jpg'])).bad_samples


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp'])
@pytest.mark.parametrize('orientation', [None, 1, 3, 6, 8, 77])
def test_header_tells_size_and_orientation_as_opencv_shows_it(tmp_path, suffix, orientation):
    path = tmp_path / f'a{suffix}'
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path, exif=exif)
    header = read_header(str(path))
    assert (header.width, header.height) == (6, 4)
    heeded = suffix != '.webp' and orientation in (1, 3, 6, 8)
    assert header.orientation == (orientation if heeded else 1)
    assert header.upright_size == cv2.imread(str(path)).shape[1::-1]
    assert read_headers([str(path)] * 300) == {str(path): header}


def test_no_header_where_there_is_no_image(tmp_path, monkeypatch):
    (tmp_path / 'a.jpg').write_bytes(b'no image')
    assert read_header(str(tmp_path / 'a.jpg')) is None
    assert read_header(str(tmp_path / 'absent.jpg')) is None
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(tmp_path / 'big.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(Image.DecompressionBombError):
        read_header(str(tmp_path / 'big.png'))
    assert read_headers([str(tmp_path / 'big.png')]) == {str(tmp_path / 'big.png'): None}


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.tif', '.webp'])
def test_more_pixels_than_pil_opens(tmp_path, monkeypatch, suffix):
    path, = write_images(tmp_path, 1, suffix)
    for limit, fine in ((1000, True), (999, False), (None, True)):  # of 40x50 pixels
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
        problem = image_problem(str(path))
        assert problem is None if fine else 'more pixels than the 1998 that PIL opens' in problem


def test_blank_jpeg_spends_the_bits_that_the_fast_path_reckons_with(tmp_path):
    path = str(tmp_path / 'a.jpg')
    for options in ({}, dict(progressive=True, optimize=True, quality=1)):
        Image.fromarray(np.zeros((4000, 4000), np.uint8)).save(path, **options)
        assert os.path.getsize(path) * 512 >= 4000 * 4000


def test_png_without_a_header(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + b'\0\0\0\0IEND\xaeB`\x82')
    assert 'cannot be decoded' in image_problem(str(tmp_path / 'a.png'))


def test_format_that_opencv_does_not_read(tmp_path):
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / 'a.jpg', format='TGA')
    assert image_problem(str(tmp_path / 'a.jpg')) == \
        'holds an image of the format TGA, which OpenCV does not read'
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / 'b.jpg', format='PNG')
    assert image_problem(str(tmp_path / 'b.jpg')) is None


def test_what_is_no_file_is_named_with_the_reason(tmp_path):
    (tmp_path / 'loop.jpg').symlink_to(tmp_path / 'loop.jpg')
    (tmp_path / 'lost.jpg').symlink_to(tmp_path / 'absent.jpg')
    (tmp_path / 'folder.jpg').mkdir()
    os.mkfifo(tmp_path / 'pipe.jpg')
    names = ('loop', 'lost', 'folder', 'pipe')
    findings = check_files(Images([tmp_path / f'{name}.jpg' for name in names]))
    assert not findings.missing
    assert [findings.damaged[str(tmp_path / f'{name}.jpg')] for name in names] == [
        'Too many levels of symbolic links', 'link to a file that does not exist',
        'Is a directory', 'no regular file']
    assert read_header(str(tmp_path / 'pipe.jpg')) is None


def test_what_may_not_be_read_is_not_called_missing(tmp_path, monkeypatch):
    path, = write_images(tmp_path / 'a', 1)

    def refuse(*args):
        raise PermissionError(errno.EACCES, 'Permission denied')

    monkeypatch.setattr(os, 'listdir', refuse)
    assert not check_files(Images([path])).bad_samples
    monkeypatch.setattr(os, 'open', refuse)
    findings = check_files(Images([path]))
    assert not findings.missing and findings.damaged == {str(path): 'Permission denied'}
