"""The published models of ``docs/model_zoo.json``: the data behind the generated pages."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mmdcn.errors import UserError

REQUIRED = ('task', 'family', 'model', 'dataset', 'metrics', 'source', 'config')
OPTIONAL = ('method', 'resolution', 'schedule', 'recipe', 'pretraining', 'params', 'macs',
            'exact_params', 'exact_macs', 'macs_input', 'weights', 'conversion', 'options',
            'published_config', 'explanation', 'note')
TASKS = {
    'classification': 'Image classification', 'roadmap': 'From ResNet to ConvNeXt, step by step',
    'pretraining': 'Pre-trained backbones', 'detection': 'Object detection',
    'segmentation': 'Semantic segmentation', '3D detection': '3-D object detection',
}


def read_zoo(path: str | Path) -> dict[str, Any]:
    """Read the data file: ``sources`` by name, and ``rows``.

    Args:
        path: The file; paths of configs in it start at the folder above that of the file.

    Raises:
        UserError: The file is missing or malformed, or a row has an unknown or missing field, an
            unknown source or task, or a config that does not exist.
    """
    path = Path(path)
    try:
        zoo = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError('data', f'{path}: {error}') from error
    if not (isinstance(zoo, dict) and isinstance(zoo.get('sources'), dict)
            and isinstance(zoo.get('rows'), list) and all(isinstance(row, dict)
                                                          for row in zoo['rows'])):
        raise UserError('data', f'got {path} of another form',
                        'an object with sources by name and a list of rows, all objects')
    for row in zoo['rows']:
        problem = _problem(row, zoo['sources'], path.parents[1])
        if problem:
            found, expected = problem
            raise UserError('row', f'{title(row)}: {found}', expected)
    return zoo


def _problem(row: dict[str, Any], sources: dict[str, Any], root: Path) -> tuple[str, str] | None:
    """What is wrong with a row and what was expected; None where nothing is."""
    if wrong := [name for name in REQUIRED if name not in row]:
        return f'got no {", ".join(wrong)}', ''
    if wrong := [name for name in row if name not in REQUIRED + OPTIONAL]:
        return f'got {", ".join(wrong)}', ', '.join(REQUIRED + OPTIONAL)
    if row['task'] not in TASKS or row['source'] not in sources:
        return (f'got task {row["task"]} and source {row["source"]}',
                f'one of {", ".join(TASKS)} and one of {", ".join(sources)}')
    config = row['config']
    if config and '::' not in config and not (root / config).is_file():
        return f'got config {config}', 'an existing file'
    return None


def title(row: dict[str, Any]) -> str:
    """Name of a row for people, e.g. ``ConvNeXt-B, ImageNet-22K, 384``."""
    names = ('family', 'model') if row.get('task') == 'roadmap' else ('model', 'method')
    parts = [row.get(name) for name in (*names, 'pretraining')] + [size(row.get('resolution'))]
    return ', '.join(part for part in parts if part)


def size(value: int | list[int] | None) -> str:
    """An image size as text: ``224``, ``512x1024`` or nothing."""
    return 'x'.join(map(str, value)) if isinstance(value, list) else str(value or '')


def markdown_table(rows: Iterable[Any], columns: dict[str, Callable[[Any], Any]]) -> str:
    """A Markdown table; columns that are empty in all rows are dropped."""
    rows = list(rows)
    cells = {head: [str(cell(row) if cell(row) is not None else '') for row in rows]
             for head, cell in columns.items()}
    cells = {head: column for head, column in cells.items() if any(column)}
    lines = [list(cells), ['---'] * len(cells), *zip(*cells.values(), strict=True)]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
