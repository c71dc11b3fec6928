"""What the families share: rename rules, the record of a conversion, the entry of the table."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmdcn.checkpoints.loading import (
    AVERAGED,
    WRAPPERS,
    CheckpointError,
    find_weights,
    plain_name,
    plain_value,
)

State = dict[str, Tensor]

# The linear layer of mmpretrain's classifiers.
CLASSIFIER_HEAD = re.compile(r'head\.fc\.(weight|bias)')
_HOLE = re.compile(r'\{([a-z]+)\}')
_SHOWN = 5


class Renames:
    """Rename rules of weight keys that can be read in both directions.

    Args:
        rules: Pairs (old, new) of patterns for whole keys. A hole of one letter, as ``{i}``, stands
            for digits, one of several letters, as ``{rest}``, for any text; both patterns of a
            pair have the same holes. The first rule that fits a key decides.
    """

    def __init__(self, rules: Iterable[tuple[str, str]]) -> None:
        self.rules = [(_compile(old), old, _compile(new), new) for old, new in rules]

    def __call__(self, key: str) -> str | None:
        """The new name of an old key, or None where no rule fits."""
        for pattern, _, _, new in self.rules:
            if match := pattern.fullmatch(key):
                return new.format(**match.groupdict())
        return None

    def back(self, key: str) -> str | None:
        """The old name of a new key, or None where no rule fits."""
        for _, old, pattern, _ in self.rules:
            if match := pattern.fullmatch(key):
                return old.format(**match.groupdict())
        return None


def _compile(pattern: str) -> re.Pattern[str]:
    parts = _HOLE.split(pattern)
    text = ''.join(
        f'(?P<{part}>{"[0-9]+" if len(part) == 1 else ".+"})' if i % 2 else re.escape(part)
        for i, part in enumerate(parts))
    return re.compile(text)


@dataclass(frozen=True)
class Options:
    """What a user may ask of a conversion; every family ignores what does not concern it.

    Args:
        pos_grid: (H, W) tokens to interpolate position embeddings to; None keeps the stored grid,
            which the backbone interpolates at run time.
        patch_size: Side of the patches in pixels that the filters are resampled to.
        window: Side of the attention windows in tokens; their table has 2 * window - 1 rows.
        global_size: Side of the token map in global attention (64: an image of 1024 pixels).
        table_resize: ``'bicubic'`` or ``'geometric'`` (BEiT's spacing) for relative positions.
        kernel_points: Points K of the deformable kernel (3x3: 9, without its centre 8).
        keep_depthwise: Keep DCNv3's depthwise convolution, for a DCNv4 with ``dw_kernel_size``.
        class_rows: Rows of the class layers to keep, in this order; None keeps all.
    """

    pos_grid: tuple[int, int] | None = None
    patch_size: int = 16
    window: int = 14
    global_size: int = 64
    table_resize: str = 'bicubic'
    kernel_points: int = 9
    keep_depthwise: bool = False
    class_rows: tuple[int, ...] | None = None


@dataclass
class Conversion:
    """The converted tensors, and what became of every tensor of the source.

    ``kept`` names are unchanged, ``renamed`` maps source to new name (several sources may make one
    tensor), ``dropped`` are source names, ``resized`` maps new names to old and new shape,
    ``edited`` are new names whose values changed in another way.
    """

    state_dict: State = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    resized: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    edited: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def put(self, name: str, value: Tensor, *sources: str) -> None:
        """Store a tensor made of these source tensors.

        Raises:
            CheckpointError: The name is taken already.
        """
        if name in self.state_dict:
            raise CheckpointError(
                'checkpoint', f'{", ".join(sources)} and another tensor both become {name}', 'one',
                'choose another family')
        self.state_dict[name] = value
        for source in sources:
            if source == name:
                self.kept.append(source)
            else:
                self.renamed[source] = name

    def replace(self, name: str, value: Tensor) -> None:
        """Store another value under a name already there, and note a change of shape."""
        old = self.state_dict[name]
        if old.shape != value.shape:
            first = self.resized.get(name, (tuple(old.shape),))[0]
            self.resized[name] = (first, tuple(value.shape))
        self.state_dict[name] = value

    @property
    def changed(self) -> bool:
        """Whether anything differs from the source."""
        return bool(self.renamed or self.dropped or self.resized or self.edited)


Convert = Callable[[State, Options], Conversion]


@dataclass(frozen=True)
class Converter:
    """One family of published checkpoints.

    Args:
        name: What users call it, on the command line as well.
        summary: What it reads and what it gives, in one line.
        convert: Makes the conversion; CheckpointError where the tensors are of another family.
        marks: Patterns of which each must be found in some key, to tell the family.
        absent: Patterns that no key may contain.
        invert: The way back, where there is one.
        uses: The :class:`Options` it looks at.
        once: Whether a second conversion of the same file would spoil it.
    """

    name: str
    summary: str
    convert: Convert
    marks: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    invert: Convert | None = None
    uses: tuple[str, ...] = ()
    once: bool = False

    def evidence(self, keys: Iterable[str]) -> list[str]:
        """A key for each mark, or nothing where the keys do not tell this family."""
        keys = list(keys)
        if any(re.search(pattern, key) for pattern in self.absent for key in keys):
            return []
        found = [next((key for key in keys if re.search(mark, key)), '') for mark in self.marks]
        return found if all(found) else []


def tensors_of(checkpoint: Mapping[str, Any], averaged: bool = True) -> State:
    """The tensors of a checkpoint as read, without wrappers and the prefix ``module.``.

    Args:
        checkpoint: What :func:`mmdcn.checkpoints.read_checkpoint` gave.
        averaged: Take the weights that :func:`mmdcn.checkpoints.read_checkpoint` has taken, the
            averaged ones (``model_ema``, ...) where the file has them; otherwise those beside
            these (``model``, ...).

    Raises:
        CheckpointError: There are none.
    """
    if not averaged:
        plain = {key: checkpoint[key] for key in WRAPPERS[1:]
                 if key in checkpoint and key not in AVERAGED}
        if not plain or not any(key in checkpoint for key in AVERAGED):
            raise CheckpointError('averaged', 'the file has no weights of the last step beside '
                                  'averaged ones, so there is nothing to choose',
                                  remedy='drop it')
        checkpoint = plain
    state = {plain_name(key): plain_value(value) for key, value in find_weights(checkpoint).items()
             if isinstance(key, str)}
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError('checkpoint', 'it holds no tensors',
                              f'weights at the top or under {", ".join(WRAPPERS)}')
    return state


def rename_all(state: State, rename: Callable[[str], str | None], *,
               drop: Callable[[str], bool] = lambda key: False) -> Conversion:
    """Rename every key; None from ``rename`` leaves a key as it is."""
    result = Conversion()
    for key, value in state.items():
        if drop(key):
            result.dropped.append(key)
        else:
            result.put(rename(key) or key, value, key)
    return result


def keep_class_rows(result: Conversion, layer: re.Pattern[str], options: Options) -> Conversion:
    """Cut the class layers, those whose converted names match, to ``options.class_rows``.

    Raises:
        CheckpointError: There is no such layer, no row is wanted, or one that it does not have.
    """
    if options.class_rows is None:
        return result
    names = [name for name in result.state_dict if layer.fullmatch(name)]
    count = min((len(result.state_dict[name]) for name in names), default=0)
    wrong = [row for row in options.class_rows if not 0 <= row < count]
    if wrong or not options.class_rows:
        got = f'row {max(wrong, key=abs)}' if wrong else 'no row'
        raise CheckpointError('class_rows', f'got {got}',
                              f'rows below {count}, the classes of the file')
    for name in names:
        result.replace(name, result.state_dict[name][list(options.class_rows)])
    return result


def refuse_unknown(family: str, unknown: Sequence[str], expected: str) -> None:
    """Raise CheckpointError if there are keys of which the family knows nothing."""
    if unknown:
        more = f' and {len(unknown) - _SHOWN} more' if len(unknown) > _SHOWN else ''
        raise CheckpointError(
            'checkpoint', f'got {", ".join(unknown[:_SHOWN])}{more}',
            f'{expected} in a file of the family {family}', 'choose another family')
