"""Write small data sets in the real COCO, ImageNet, ADE20K and nuScenes formats, offline.

    python tools/make_mini_data.py --root data/mini
    python tools/make_mini_data.py --root data/mini --sets nuscenes

take less than a minute each and write the same bytes for the same seed and library versions.
Objects are handwritten digits and textured, turned shapes that cover one another; the
backgrounds are crops of photographs. Form tells the class, colour does not. Train and val
share no photograph and no handwritten digit. The scenes of nuScenes, which is written when it is
named and needs mmdet3d, are boxes in the colours of their classes on a chequered ground.

Classes (importable from ``tools/mini_data/classes.py``):

- coco: circle, digit_2, digit_4, digit_6, ring, square, star, triangle
- imagenet: circle, cross, digit_2, digit_4, ring, square, star, triangle
- ade: background, circle, digit_2, digit_4, ring, square, star, triangle; 0 on disk is void,
  so configs say ``reduce_zero_label=True``
- nuscenes: barrier, bicycle, bus, car, construction_vehicle, motorcycle, pedestrian,
  traffic_cone, trailer, truck

Every set folder also holds ``mini_data.json`` (seed, counts, classes, digest),
``provenance.json`` (photograph, crop and digits of every picture, or scene, frame and camera) and
``overview.png``.
A second call finds the data whole and leaves it alone.
"""
from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdcn.apis import cli  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402
from tools.mini_data import ade, coco, imagenet, nuscenes  # noqa: E402
from tools.mini_data.classes import CLASSES, DEFAULT_SETS, SPLITS  # noqa: E402
from tools.mini_data.overview import write_overview  # noqa: E402
from tools.mini_data.sources import PHOTOS, load_photo, photo_names  # noqa: E402
from tools.mini_data.store import (  # noqa: E402
    MANIFEST,
    check,
    digest,
    identity,
    write_json,
    written_aside,
)

FORMATS: dict[str, ModuleType] = {'coco': coco, 'imagenet': imagenet, 'ade': ade,
                                  'nuscenes': nuscenes}


def _seed(text: str) -> int:
    """A number that can seed the generator."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f'--seed is not valid: got {text!r}, expected a whole number from 0; try --seed 0')
    return int(text)


def _workers(text: str) -> int:
    """A number of processes."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(
            f'--workers is not valid: got {text!r}, expected a whole number from 1; '
            'drop it to use all processors')
    return int(text)


def _scale(text: str) -> float:
    """A factor for the number of pictures."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(
            f'--scale is not valid: got {text!r}, expected a number above 0, at most 100; '
            'drop it for the usual size')
    return value


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(
        prog='make_mini_data.py', description=(__doc__ or '').split('\n', 1)[0],
        epilog='Classes: ' + '; '.join(f'{key}: {", ".join(names)}'
                                       for key, names in CLASSES.items()))
    parser.add_argument('--root', type=Path, required=True,
                        help='folder for the sets, such as data/mini')
    parser.add_argument('--seed', type=_seed, default=0, help='default: 0')
    parser.add_argument('--sets', '--tasks', nargs='+', choices=list(FORMATS),
                        default=list(DEFAULT_SETS),
                        help=f'default: {" ".join(DEFAULT_SETS)}')
    parser.add_argument('--scale', type=_scale, default=1.0,
                        help='factor for the number of pictures, default: 1')
    parser.add_argument('--workers', type=_workers, default=os.cpu_count() or 1,
                        help='processes, default: one per processor; the bytes stay the same')
    parser.add_argument('--overwrite', action='store_true',
                        help='replace what an earlier call of this tool wrote')
    return parser


def _has_photos(set_name: str) -> bool:
    """Whether a set is made of photographs and handwritten digits."""
    return set_name != 'nuscenes'


def _draw_all(folder: Path, set_name: str, args: argparse.Namespace,
              pool: ProcessPoolExecutor) -> list[dict]:
    """Draw all pictures of a set and say how far it is; returns their records in order."""
    jobs = FORMATS[set_name].plan(args.seed, args.scale)
    started, said, records = time.monotonic(), 0.0, []
    for record in pool.map(partial(FORMATS[set_name].draw, folder), jobs, chunksize=8):
        records.append(record)
        now = time.monotonic() - started
        if now - said > 2 or len(records) == len(jobs):
            said = now
            left = now / len(records) * (len(jobs) - len(records))
            print(f'{set_name}: {len(records)}/{len(jobs)} pictures, {left:.0f} s left',
                  flush=True)
    return records


def _write_notes(folder: Path, wanted: dict, records: list[dict],
                 counts: dict[str, dict[str, int]]) -> dict:
    """Write provenance, overview and, last, the manifest; returns the manifest."""
    set_name = wanted['set']
    provenance = {record['file']: record['provenance'] for record in records}
    write_json(folder / 'provenance.json', provenance)
    write_overview(folder, set_name)
    files, content_digest = digest(folder)
    sources = {}
    if _has_photos(set_name):
        sources['photographs'] = {split: list(photo_names(split)) for split in SPLITS}
        sources['digits'] = {split: sorted({
            index for record in records if record['split'] == split
            for index in record['provenance']['digits']}) for split in SPLITS}
    manifest = wanted | {'classes': list(CLASSES[set_name]), 'counts': counts} | sources | {
        'files': files, 'digest': content_digest}
    write_json(folder / MANIFEST, manifest, indent=1)
    return manifest


def _make_set(set_name: str, args: argparse.Namespace, pool: ProcessPoolExecutor) -> dict:
    """Write one set; returns its manifest."""
    wanted = identity(set_name, args.seed, args.scale)
    with written_aside(args.root / set_name) as aside:
        FORMATS[set_name].prepare(aside)
        records = _draw_all(aside, set_name, args, pool)
        return _write_notes(aside, wanted, records, FORMATS[set_name].complete(aside, records))


def _make_sets(args: argparse.Namespace) -> list[dict]:
    """Check all places before anything is drawn, then write what is not there yet."""
    names = list(dict.fromkeys(args.sets))
    manifests = {name: check(args.root / name, identity(name, args.seed, args.scale),
                             args.overwrite) for name in names}
    for name, manifest in manifests.items():
        if manifest is not None:
            print(f'{name}: {args.root / name} is already complete (seed {args.seed}, '
                  f'{manifest["files"]} files verified)')
    missing = [name for name, manifest in manifests.items() if manifest is None]
    if missing:
        # Loaded here, before the processes start, so that they inherit the photographs.
        for name in PHOTOS if any(map(_has_photos, missing)) else ():
            load_photo(name)
        with ProcessPoolExecutor(args.workers) as pool:
            manifests.update({name: _make_set(name, args, pool) for name in missing})
    return list(manifests.values())


def _summarise(root: Path, manifests: list[dict]) -> None:
    """Say what lies where."""
    print()
    for manifest in manifests:
        folder = root / manifest['set']
        print(f'{folder}: {len(manifest["classes"])} classes '
              f'({", ".join(manifest["classes"])})')
        for split, counts in manifest['counts'].items():
            print(f'  {split:5} ' + ', '.join(
                f'{value} {key.replace("_", " ")}' for key, value in counts.items()))
        print(f'  look at {folder / "overview.png"}')


def make_mini_data(args: argparse.Namespace) -> int:
    """Write the sets as the command line says; returns the exit code."""
    started = time.monotonic()
    try:
        manifests = _make_sets(args)
    except OSError as error:
        raise UserError('root', f'cannot write below {args.root}: {error}',
                        remedy='choose another --root') from error
    _summarise(args.root, manifests)
    print(f'mini data: ready in {args.root} after {time.monotonic() - started:.0f} s')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(make_mini_data, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
