"""Print versions, compiled backends and a verdict: ``OK``, or what fails and what fixes it.

Packages are imported by name, one by one, so that a broken one is reported rather than ending the
report. Exit code 1 where an item fails.
"""
from __future__ import annotations

import argparse
import importlib
import platform
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
FIX = 'make env'


@dataclass(frozen=True)
class Item:
    """One line of the report; ``problem`` is empty where all is well."""

    name: str
    value: str
    problem: str = ''
    remedy: str = FIX


def describe(error: Exception) -> str:
    """Type and first line of an error."""
    return f'{type(error).__name__}: {(str(error).splitlines() or [""])[0]}'


def package(name: str, distribution: str, *modules: str, expected: str = '') -> Item:
    """Import ``modules`` and compare the distribution's version with ``expected``."""
    try:
        for module in modules:
            importlib.import_module(module)
        version = metadata.version(distribution)
    except Exception as error:  # whatever a broken package raises belongs in the report
        return Item(name, 'broken', describe(error))
    if expected and version.split('+')[0] != expected:
        pip = f'{sys.executable} -m pip install --no-build-isolation'
        return Item(name, version, f'got {version}, expected {expected}',
                    f'{pip} {distribution}=={expected}')
    return Item(name, version)


def torch_item() -> Item:
    """torch with its CUDA build and devices; any version from 2.10 on will do."""
    item = package('torch', 'torch', 'torch')
    if item.problem:
        return item
    torch = sys.modules['torch']
    devices = ', '.join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    value = (f'{torch.__version__}, CUDA build {torch.version.cuda or "none"}, '
             f'GPU {devices or "none"}')
    if tuple(int(part) for part in torch.__version__.split('.')[:2]) < (2, 10):
        return Item('torch', value, f'got {torch.__version__}, expected 2.10 or newer',
                    'install a newer torch and torchvision, or remove them, then make env')
    return Item('torch', value)


def torchvision_item() -> Item:
    """torchvision, whose compiled operators only import beside the torch they were built for."""
    item = package('torchvision', 'torchvision', 'torchvision')
    if not item.problem:
        return item
    return Item(item.name, item.value, item.problem,
                'install torch and torchvision of one release and one CUDA build, then make env')


def ops_item() -> Item:
    """The compiled operators: loaded, and one call run."""
    try:
        ops = importlib.import_module('ops_dcn')
        library = importlib.import_module('ops_dcn._library')
        torch = importlib.import_module('torch')
        got = ops.dcnv4(torch.ones(1, 4, 4, 2), torch.ones(1, 4, 4, 32), groups=1)
        if got.shape != (1, 4, 4, 2):
            raise RuntimeError(f'dcnv4 returned shape {tuple(got.shape)}')
        backends = ', '.join(f'{name}: {value or "none (" + library.cuda_problem() + ")"}'
                             for name, value in library.backends().items())
    except Exception as error:
        pip = f'{sys.executable} -m pip install --no-build-isolation --no-deps -e .'
        return Item('ops_dcn', 'broken', describe(error), f'{FIX}, or {pip}')
    item = Item('ops_dcn', f'{metadata.version("mmdcn")} ({backends})')
    if torch.cuda.is_available() and library.cuda_problem():
        return replace(item, problem='it cannot use the CUDA device of this machine')
    return item


def checks() -> list[Callable[[], Item]]:
    """All items of the report, in order; calling one imports what it reports on."""
    python = platform.python_version()
    supported = (3, 10) <= sys.version_info[:2] <= (3, 13)
    compiler = shutil.which('c++') or shutil.which('g++') or shutil.which('clang++')
    return [
        lambda: Item('Python', f'{python} ({sys.executable})',
                     '' if supported else f'got {python}, expected 3.10 to 3.13',
                     'make env PYTHON=/path/to/python3.11'),
        lambda: Item('platform', f'{platform.platform()}'),
        lambda: Item('C++ compiler', compiler or 'none (only needed to build from source)'),
        torch_item,
        torchvision_item,
        lambda: package('numpy', 'numpy', 'numpy'),
        lambda: package('OpenCV', 'opencv-python', 'cv2'),
        lambda: package('mmcv', 'onedl-mmcv', 'mmcv', 'mmcv.ops', expected='2.3.6'),
        lambda: package('mmengine', 'onedl-mmengine', 'mmengine', expected='0.10.12'),
        lambda: package('mmpretrain', 'onedl-mmpretrain', 'mmpretrain.models', expected='1.3.6'),
        lambda: package('mmdet', 'onedl-mmdetection', 'mmdet.models', expected='3.5.1'),
        lambda: package('mmseg', 'onedl-mmsegmentation', 'mmseg.models', expected='1.4.2'),
        lambda: package('mmdet3d', 'mmdet3d', 'mmdet3d_custom', 'mmdet3d.models',
                        'mmdet3d.datasets', 'mmdet3d.evaluation', expected='1.4.0'),
        lambda: package('nuscenes-devkit', 'nuscenes-devkit', 'nuscenes', expected='1.2.0'),
        lambda: package('pycocotools', 'pycocotools', 'pycocotools.mask'),
        lambda: package('tensorboard', 'tensorboard', 'torch.utils.tensorboard'),
        ops_item,
    ]


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    return argparse.ArgumentParser(prog='collect_env.py', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def main(argv: list[str] | None = None) -> int:
    """Print the report; 0 when every item is well."""
    build_parser().parse_args(argv)
    warnings.simplefilter('ignore')
    items = []
    for check in checks():
        items.append(item := check())
        print(f'{item.name:16} {item.value}' + (f'  <- {item.problem}' if item.problem else ''),
              flush=True)
    failing = [item for item in items if item.problem]
    for item in failing:
        print(f'FAILS: {item.name}: {item.problem}; fix it: {item.remedy}')
    print('OK' if not failing else f'{len(failing)} of {len(items)} items fail')
    return 1 if failing else 0


if __name__ == '__main__':
    sys.exit(main())
