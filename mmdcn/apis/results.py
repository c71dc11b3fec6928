"""Where results go: never over an input, never over the result of another input."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmdcn.apis.config import check_writable
from mmdcn.errors import UserError


def name_results(images: Mapping[str, str]) -> dict[str, str]:
    """Names for the results of images, without suffix, no two alike.

    An image keeps its path below the folder where it was found: ``a/x.jpg`` gives ``a/x``. Images
    whose names would be equal, in upper or lower case, keep their suffix (``x.png`` beside
    ``x.jpg``); where that is equal, too, the path below the folder that all images share; where
    only the case differs, they get a number.

    Args:
        images: Each image with the folder in which it was looked for.
    """
    if not images:
        return {}
    common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in images])
    forms = []
    for number, (path, folder) in enumerate(images.items(), 1):
        near, far = os.path.relpath(path, folder), os.path.relpath(path, common)
        forms.append([os.path.splitext(near)[0], near, os.path.splitext(far)[0], far,
                      f'{far}_{number}'])
    while True:
        taken = Counter(form[0].casefold() for form in forms)
        alike = [form for form in forms if taken[form[0].casefold()] > 1 and len(form) > 1]
        if not alike:
            return {path: form[0] for path, form in zip(images, forms, strict=True)}
        for form in alike:
            del form[0]


def place_results(images: Mapping[str, str], out_dir: str, name: str = 'out_dir',
                  ) -> dict[str, str]:
    """Paths, without suffix, for the results of images: :func:`name_results` in a folder.

    Args:
        images: Each image with the folder in which it was looked for.
        out_dir: Folder of the results.
        name: Argument that names it.

    Raises:
        UserError: Results would lie beside the images, where they could replace one.
    """
    places = {path: os.path.join(out_dir, named) for path, named in name_results(images).items()}
    # By number, as links and the case of letters give one folder many names.
    taken = {_identity(os.path.dirname(path) or '.'): path for path in images}
    for place in places.values():
        identity = _identity(os.path.dirname(place) or '.')
        if identity is not None and identity in taken:
            raise UserError(name, f'got {out_dir}, so that {place}.* would lie beside the image '
                            f'{taken[identity]}', 'a folder without images of this call',
                            'choose another')
    return places


def _identity(path: str) -> tuple[int, int] | None:
    """What is the same for all names of a file or folder; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_outputs(outputs: Mapping[str, str | Path | None],
                  inputs: Iterable[str | Path] = ()) -> None:
    """Check before anything is computed that files can be written and cost no other file.

    Args:
        outputs: Files to write, by the argument that names them; None for those not asked for.
        inputs: Files that are read. A file of an earlier run that is neither may be replaced.

    Raises:
        UserError: A file cannot be written, is an input, or is named twice.
    """
    asked = {name: str(path) for name, path in outputs.items() if path is not None}
    read = {identity: path for path in inputs if (identity := _identity(str(path)))}
    seen: dict[str, str] = {}
    for name, path in asked.items():
        check_writable(os.path.dirname(path) or '.', name)
        if os.path.isdir(path):
            raise UserError(name, f'{path} is a folder', 'a file', 'choose another name')
        if (found := _identity(path)) in read:
            raise UserError(name, f'got {path}, which is the input {read[found]}',
                            'a file of its own', 'choose another name')
        other = seen.setdefault(os.path.realpath(path).casefold(), name)
        if other != name:
            raise UserError(name, f'got {path}, as for `{other}`', 'a file of its own',
                            'choose another name')


def check_picture(path: str | Path | None, name: str) -> None:
    """Check that the suffix of a drawing to be written is one that matplotlib writes.

    Raises:
        UserError: It is not.
    """
    if path is not None and Path(path).suffix.lower() not in ('.png', '.pdf', '.svg'):
        raise UserError(name, f'got {path}', 'a name ending in .png, .pdf or .svg')
