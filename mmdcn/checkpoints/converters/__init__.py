"""Converters of published checkpoints, by family; see docs/checkpoints.md."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdcn.checkpoints.converters import (
    bevformer,
    convnext,
    detectors,
    internimage,
    vit,
)
from mmdcn.checkpoints.converters.base import (
    Conversion,
    Converter,
    Options,
    State,
    tensors_of,
)
from mmdcn.checkpoints.loading import CheckpointError

# Detection takes the first family whose marks are found, so the more telling ones come first.
FAMILIES: dict[str, Converter] = {
    family.name: family
    for module in (bevformer, detectors, internimage, convnext, vit) for family in module.FAMILIES
}

__all__ = ['FAMILIES', 'Conversion', 'Converter', 'Options', 'State', 'convert', 'detect',
           'tensors_of']


def detect(state: State) -> tuple[Converter, list[str]]:
    """The family of a file, and the keys that tell it.

    Raises:
        CheckpointError: No family is recognised.
    """
    for family in FAMILIES.values():
        if family.marks and (evidence := family.evidence(state)):
            return family, evidence
    raise CheckpointError(
        f'checkpoint is not valid: no family has keys such as {", ".join(list(state)[:3])}, '
        f'expected one of {", ".join(FAMILIES)}; name it with --family, or load the file as it is')


def convert(checkpoint: Mapping[str, Any], family: str, options: Options | None = None, *,
            inverse: bool = False, averaged: bool = True) -> Conversion:
    """Convert a checkpoint as read.

    Args:
        checkpoint: what :func:`mmdcn.checkpoints.read_checkpoint` gave.
        family: a name in ``FAMILIES``.
        options: wishes; each must concern the family.
        inverse: convert back to the published names.
        averaged: take the averaged weights where the file has them.

    Returns:
        The new tensors, and what became of each old one.

    Raises:
        CheckpointError: The file is of another family or was converted before, or an option
            does not concern it.
    """
    options = options or Options()
    if family not in FAMILIES:
        raise CheckpointError(f'family is not valid: got {family!r}, expected one of '
                              f'{", ".join(FAMILIES)}')
    converter = FAMILIES[family]
    step = converter.invert if inverse else converter.convert
    if step is None:
        raise CheckpointError(f'--inverse is not valid: got family {family}, expected one of '
                              f'{", ".join(n for n, c in FAMILIES.items() if c.invert)}')
    for name, default in vars(Options()).items():
        if getattr(options, name) != default and (inverse or name not in converter.uses):
            raise CheckpointError(
                f'--{name.replace("_", "-")} is not valid: the family {family} does not use it'
                f'{" on the way back" if inverse else ""}; leave it out')
    done = (checkpoint.get('meta') or {}).get('converted_by')
    if converter.once and (done == family) is not inverse:
        raise CheckpointError(
            f'checkpoint is not valid: it was {"not " if inverse else ""}converted by {family} '
            f'before; {"leave out --inverse" if inverse else "use it as it is"}')
    state = tensors_of(checkpoint, averaged)
    if not inverse and converter.marks and not converter.evidence(state):
        raise CheckpointError(
            f'checkpoint is not valid: it has no keys like {" and ".join(converter.marks)}, '
            f'expected a file of the family {family}; leave out --family to have it recognised')
    return step(state, options)
