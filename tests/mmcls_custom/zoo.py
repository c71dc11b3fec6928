"""Reference data of the model zoo: manifests, golden activations, layer-decay tables."""
from __future__ import annotations

import gzip
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

from mmcls_custom.backbones import FlashInternImage, InternImage
from tests.helpers import reference_path

SIZES = {'t': 'tiny', 's': 'small', 'b': 'base', 'l': 'large', 'xl': 'xlarge', 'h': 'huge',
         'g': 'giant'}
MANIFESTS = [('internimage', s) for s in SIZES] + [('flash_internimage', s) for s in 'tsbl']
ACTIVATIONS = [f'{model}_{size}' for model in
               ('internimage_t', 'flash_internimage_t', 'tiny_h', 'tiny_l', 'tiny_flash_l')
               for size in 'ab']


def family_class(family: str) -> type[InternImage]:
    return FlashInternImage if family.lower().startswith('flash') else InternImage


def manifest(family: str, size: str) -> dict:
    folder = reference_path('zoo')
    plain = folder / f'{family}_{size}.json'
    if plain.exists():
        return json.loads(plain.read_text())
    return json.loads(gzip.decompress((folder / f'{plain.name}.gz').read_bytes()))


def downstream_shapes(data: dict) -> dict[str, list[int]]:
    """Names and shapes of the downstream backbone of a manifest."""
    view = data['downstream_backbone']
    shapes = dict(data['classification']['state_dict'])
    for name in view['keys_only_in_classification']:
        del shapes[name]
    shapes.update(view['keys_only_in_downstream'])
    return shapes


def activation_case(name: str) -> tuple[dict, Path]:
    folder = reference_path('zoo', 'activations')
    return json.loads((folder / 'index.json').read_text())[name], folder / f'{name}.npz'


def fill_rule() -> ModuleType:
    """The module that fills a model with the deterministic values of the golden activations."""
    spec = importlib.util.spec_from_file_location('fill_params', reference_path(
        'zoo', 'fill_params.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decay_tables() -> dict[str, list[tuple[str, int, float, bool]]]:
    """Tables of layer_decay.md, by the line above: (parameter, layer, lr scale, weight decay)."""
    tables: dict[str, list[tuple[str, int, float, bool]]] = {}
    title = ''
    for line in reference_path('zoo', 'layer_decay.md').read_text().splitlines():
        row = re.fullmatch(r'\| `([\w.]+)` \| (\d+) \| ([\d.e-]+) \| (yes|0) \|', line)
        if row:
            name, layer, scale, decay = row.groups()
            tables.setdefault(title, []).append((name, int(layer), float(scale), decay == 'yes'))
        elif line and not line.startswith('|'):
            title = line
    return tables
