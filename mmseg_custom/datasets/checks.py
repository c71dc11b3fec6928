"""What the label maps of segmentation data sets are checked for, and heads against classes."""
from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmseg.datasets import BaseCDDataset, BaseSegDataset
from mmseg.models import DepthEstimator
from mmseg.models.decode_heads import STDCHead
from PIL import Image
from torch import nn

from mmdcn.data.checks import DataCheck, register_check, shorten
from mmdcn.data.files import ImageHeader, map_files, read_headers
from mmdcn.errors import UserError
from mmseg_custom.datasets.transforms import (
    IGNORED,
    NameClasses,
    compare_reduce_zero_label,
    label_table,
    refuse_labels,
    strange_labels,
)

# All label maps up to this many pixels, ten seconds of one processor core, else an even spread.
_PIXELS_LOOKED_INTO = 10**9
_FEWEST_LABEL_MAPS = 16
_ONE_CHANNEL = ('', '1', 'L', 'P', 'I', 'F')
# The files of a user are never changed; this writes mended ones into another folder.
_REWRITE = (
    "python -c 'import sys; from pathlib import Path; from PIL import Image; "
    '[Image.open(p).point(lambda v: min(v, 1)).save(Path(sys.argv[1], Path(p).name)) '
    "for p in sys.argv[2:]]' NEW_FOLDER OLD_FOLDER/*.png")


@dataclass
class _Sample:
    """Paths and headers of a picture and its label map; no header where a file cannot be read."""

    picture: str
    labels: str
    picture_header: ImageHeader | None = None
    labels_header: ImageHeader | None = None


@register_check(BaseSegDataset, BaseCDDataset)
class LabelMapCheck(DataCheck):
    """Label maps must have the size of their pictures and hold classes; heads as many classes.

    Sizes are compared for all samples. Values are looked at in all label maps, or in an even
    spread of a large set; the rest is checked as it is read
    (:class:`mmseg_custom.datasets.transforms.CheckedLoadAnnotations`).
    """

    def prepare(self, dataset: Any) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.prepare`: tells the pipeline the classes."""
        num_classes = _count_classes(dataset)
        if num_classes:
            dataset.pipeline.transforms.insert(0, NameClasses(num_classes, dataset.ignore_index))

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`; warns of classes that never occur."""
        num_classes = _count_classes(dataset)
        if not num_classes:
            return
        _compare_settings(dataset, where)
        samples = _read_samples(dataset)
        if not samples:
            return
        _compare_sizes(samples, where, _loads_turned(dataset))
        looked_into = _spread(samples)
        counts = _count_values(dataset, looked_into, num_classes, where)
        share = f'{len(looked_into)} of its {len(samples)}' * (len(looked_into) < len(samples))
        _warn_of_unlearned(dataset, counts, where, share or f'its {len(samples)}')

    def check_model(self, model: nn.Module, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check_model`."""
        num_classes = _count_classes(dataset)
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        if not num_classes or isinstance(model, DepthEstimator):
            return
        for path, head in _heads(model):
            got = getattr(head, 'num_classes', num_classes)
            # One output with a threshold tells two classes apart.
            binary = num_classes == 2 and getattr(head, 'threshold', None) is not None
            if got != num_classes and not binary:
                raise UserError(f'{path}.num_classes', f'got {got}', f'{num_classes}, as many as '
                                f'{where}.metainfo.classes has', 'set it in every head, or '
                                'metainfo=dict(classes=...) of the data set, whichever is wrong')
            _compare_class_weights(path, head)
            ignored = getattr(head, 'ignore_index', None)
            if ignored is not None and ignored != dataset.ignore_index:
                _warn(f'{path}.ignore_index is {ignored}, but ignore_index of {where} is '
                      f'{dataset.ignore_index}: give both the value that the label maps hold')


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def _count_classes(dataset: Any) -> int:
    return len(dataset.metainfo.get('classes') or [])


def _heads(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The heads that predict the classes, with their key paths in the config."""
    for name in ('decode_head', 'auxiliary_head'):
        head = getattr(model, name, None)
        parts = enumerate(head) if isinstance(head, nn.ModuleList) else [(None, head)]
        for index, part in parts:
            path = f'model.{name}' if index is None else f'model.{name}.{index}'
            # That of STDC finds borders, whatever the classes.
            if part is not None and not isinstance(part, STDCHead):
                yield path, part
                for i, update in enumerate(getattr(part, 'kernel_update_head', ())):
                    yield f'{path}.kernel_update_head.{i}', update


def _compare_class_weights(path: str, head: Any) -> None:
    """Refuse weights of the loss that are not one per output of the last layer."""
    for loss_name, layer_name, outputs in (('loss_decode', 'conv_seg', 'out_channels'),
                                           ('loss_cls', 'cls_embed', 'out_features')):
        loss, layer = getattr(head, loss_name, None), getattr(head, layer_name, None)
        for part in loss if isinstance(loss, nn.ModuleList) else [loss]:
            weights, count = getattr(part, 'class_weight', None), getattr(layer, outputs, None)
            if isinstance(weights, list | tuple) and count not in (None, len(weights)):
                raise UserError(f'{path}.{loss_name}.class_weight', f'got {len(weights)} numbers',
                                f'{count}, one for each output of {layer_name}')


def _compare_settings(dataset: Any, where: str) -> None:
    """Refuse settings that contradict one another or what mmseg does."""
    for transform in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        compare_reduce_zero_label(getattr(transform, 'reduce_zero_label', None),
                                  dataset.reduce_zero_label, where)
    cause = 'reduce_zero_label' if dataset.reduce_zero_label else \
        'a subset of the classes' if getattr(dataset, 'label_map', None) else ''
    if cause and dataset.ignore_index != IGNORED:
        raise UserError(f'{where}.ignore_index', f'got {dataset.ignore_index}', f'{IGNORED} with '
                        f'{cause}, which makes what is no class {IGNORED}', 'leave it out there '
                        'and in the heads and metrics')


def _read_samples(dataset: Any) -> list[_Sample]:
    """The samples whose label maps are local files, each label map once."""
    samples: dict[str, _Sample] = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        path = info.get('seg_map_path')
        if path and '://' not in path:
            samples.setdefault(path, _Sample(info.get('img_path') or '', path))
    pictures = [sample.picture for sample in samples.values()
                if sample.picture and '://' not in sample.picture]
    headers = read_headers([*samples, *pictures])
    for sample in samples.values():
        sample.labels_header = headers[sample.labels]
        sample.picture_header = headers.get(sample.picture)
    # Which files are damaged and why is for check_files to say.
    return [sample for sample in samples.values() if sample.labels_header]


def _loads_turned(dataset: Any) -> bool:
    """Whether the pipeline turns pictures as their EXIF orientation says."""
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    return all(getattr(transform, 'color_type', 'color') in ('color', 'grayscale')
               for transform in transforms)


def _compare_sizes(samples: list[_Sample], where: str, turned: bool) -> None:
    """Compare label maps with their pictures as far as the headers tell."""
    doubtful, wrong = [], []
    for sample in samples:
        labels, picture = sample.labels_header, sample.picture_header
        if labels.mode.split(';')[0] not in _ONE_CHANNEL:
            raise UserError('label map', f'{sample.labels} of {where} has pixels of the mode '
                            f'{labels.mode}', 'one channel holding class numbers',
                            'write the class number of each pixel, not a colour')
        if picture is None:
            continue
        stored = (picture.width, picture.height)
        size = picture.upright_size if turned else stored
        if (labels.width, labels.height) != size:
            wrong.append(sample)
        elif turned and picture.orientation != 1 and size == stored:
            doubtful.append(sample)
    if wrong:
        raise _size_error(wrong, len(samples), where, turned)
    if doubtful:
        first = doubtful[0]
        _warn(f'{where}: {len(doubtful)} pictures are turned or mirrored as their EXIF orientation '
              f'says ({first.picture}: {first.picture_header.orientation}), and their label maps '
              'have the same size either way: make sure that these show the pictures upright')


def _size_error(wrong: list[_Sample], total: int, where: str, turned: bool) -> UserError:
    """The error for label maps that have another size than their pictures."""
    labels, picture = wrong[0].labels_header, wrong[0].picture_header
    stored = (picture.width, picture.height)
    width, height = picture.upright_size if turned else stored
    orientation = ''
    remedy = 'make each label map as large as its picture'
    if picture.orientation != 1 and turned:
        orientation = f' when turned as its EXIF orientation {picture.orientation} says'
        remedy = ('turn the label maps alike, or write the pictures anew without the orientation, '
                  'whichever lets them agree')
    return UserError(
        'label map', f'{len(wrong)} of {total} of {where} have another size than their pictures; '
        f'the first, {wrong[0].labels}, has {labels.width}x{labels.height} pixels',
        f'{width}x{height} as {wrong[0].picture} has{orientation}', remedy)


def _spread(samples: list[_Sample]) -> list[_Sample]:
    """As many samples as can be looked into, first and last included."""
    pixels = sum(sample.labels_header.width * sample.labels_header.height for sample in samples)
    count = max(_FEWEST_LABEL_MAPS, len(samples) * _PIXELS_LOOKED_INTO // max(pixels, 1))
    if count >= len(samples):
        return samples
    return [samples[round(i * (len(samples) - 1) / (count - 1))] for i in range(count)]


def _count_values(dataset: Any, samples: list[_Sample], num_classes: int, where: str,
                  ) -> np.ndarray:
    """Pixels of each value of the files, of shape (256,); strange values are refused."""
    table = label_table(dataset.reduce_zero_label, getattr(dataset, 'label_map', None))
    total = np.zeros(256, np.int64)
    found = map_files(_values_of, [sample.labels for sample in samples])
    for path, counts in found.items():
        strange = strange_labels(counts, table, num_classes, dataset.ignore_index)
        if strange:
            raise refuse_labels(f'{path} of {where}', strange, num_classes, dataset.ignore_index,
                                dataset.reduce_zero_label)
        for value, pixels in counts.items():
            total[int(value)] += pixels
    return total


def _values_of(path: str) -> dict[float, int]:
    """How many pixels of a label map have each value; none where it cannot be decoded."""
    try:
        with Image.open(path) as image:
            if image.mode in ('L', 'P'):  # a tenth of the time of np.unique
                return {value: pixels for value, pixels in enumerate(image.histogram()) if pixels}
            values, counts = np.unique(np.asarray(image), return_counts=True)
    except (OSError, SyntaxError, ValueError):
        return {}
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _warn_of_unlearned(dataset: Any, values: np.ndarray, where: str, looked_into: str) -> None:
    """Warn of classes that never occur, and where most of what is not background is ignored.

    Background is class 0, unless ``reduce_zero_label`` has taken the zero out of the classes.

    Args:
        dataset: The data set.
        values: Pixels of each value of the files, of shape (256,).
        where: Key path of the data set.
        looked_into: In words, how many of its label maps were counted.
    """
    table = label_table(dataset.reduce_zero_label, getattr(dataset, 'label_map', None))
    pixels = np.bincount(table, values, minlength=256).astype(np.int64)
    classes = dataset.metainfo['classes']
    ignored = int(pixels[dataset.ignore_index]) if dataset.ignore_index in range(256) else 0
    background = 0 if dataset.reduce_zero_label else int(pixels[0])
    rest = int(pixels.sum()) - background
    held = f'{looked_into} label maps hold the values {shorten(np.flatnonzero(values).tolist())}'
    absent = [name for name, count in zip(classes, pixels[:len(classes)], strict=True) if not count]
    if absent:
        _warn(f'{where}: never in the label maps and not learned from them: the classes '
              f'{shorten(absent)}; {held}. Check metainfo.classes and reduce_zero_label')
    if 2 * ignored <= rest:
        return
    kind = 'the pixels' if dataset.reduce_zero_label else f'what is not {classes[0]}'
    remedy = 'Check ignore_index and reduce_zero_label'
    if len(classes) == 2 and set(np.flatnonzero(values)) == {0, IGNORED}:
        remedy = (f'If {IGNORED} stands for {classes[1]}, write new label maps that hold 1 '
                  f'instead, for example with\n  {_REWRITE}')
    _warn(f'{where}: {ignored / rest:.0%} of {kind} is ignored (value {dataset.ignore_index}) and '
          f'not learned; {held}. {remedy}')
