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
        'checkpoint', f'no family has keys such as {", ".join(list(state)[:3])}',
        f'one of {", ".join(FAMILIES)}', 'name it with `family`, or load the file as it is')


def convert(checkpoint: Mapping[str, Any], family: str, options: Options | None = None, *,
            inverse: bool = False, averaged: bool = True) -> Conversion:
    """Convert a checkpoint as read.

    Args:
        checkpoint: What :func:`mmdcn.checkpoints.read_checkpoint` gave.
        family: A name in ``FAMILIES``.
        options: Wishes; each must concern the family.
        inverse: Convert back to the published names.
        averaged: Take the averaged weights where the file has them.

    Returns:
        The new tensors, and what became of each old one.

    Raises:
        CheckpointError: The file is of another family or was converted before, or an option
            does not concern it.
    """
    options = options or Options()
    if family not in FAMILIES:
        raise CheckpointError('family', f'got {family!r}', f'one of {", ".join(FAMILIES)}')
    converter = FAMILIES[family]
    step = converter.invert if inverse else converter.convert
    if step is None:
        raise CheckpointError('inverse', f'got family {family}', 'one of '
                              f'{", ".join(n for n, c in FAMILIES.items() if c.invert)}')
    for name, default in vars(Options()).items():
        if getattr(options, name) != default and (inverse or name not in converter.uses):
            raise CheckpointError(name, f'the family {family} does not use it'
                                  f'{" on the way back" if inverse else ""}', remedy='drop it')
    done = (checkpoint.get('meta') or {}).get('converted_by')
    if converter.once and (done == family) is not inverse:
        raise CheckpointError(
            'checkpoint', f'it was {"not " if inverse else ""}converted by {family} before',
            remedy='drop `inverse`' if inverse else 'use it as it is')
    state = tensors_of(checkpoint, averaged)
    if not inverse and converter.marks and not converter.evidence(state):
        raise CheckpointError(
            'checkpoint', f'it has no keys like {" and ".join(converter.marks)}',
            f'a file of the family {family}', 'drop `family` to have it recognised')
    return step(state, options)
