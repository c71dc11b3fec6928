#!/usr/bin/env python
"""Write the info files that temporal camera models read from a nuScenes folder.

    python tools/data/create_nuscenes_infos.py data/nuscenes
    python tools/data/create_nuscenes_infos.py data/nuscenes --version v1.0-mini

mmdet3d's own info files are used where they exist and made where not. Beside them come
``nuscenes_infos_temporal_SPLIT.pkl``: the same and scenes, neighbours, exact poses, and the boxes
that each camera sees. For the whole set this takes about an hour and 10 GB of memory (a guess: it
has not been run on it here).
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdcn.apis import cli  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(prog='create_nuscenes_infos.py',
                                     description=(__doc__ or '').split('\n', 1)[0])
    parser.add_argument('root', type=Path,
                        help='folder of nuScenes, with VERSION, maps and samples')
    parser.add_argument('--version', default='v1.0-trainval',
                        help='v1.0-trainval (default), v1.0-mini or v1.0-test')
    parser.add_argument('--prefix', default='nuscenes',
                        help='start of the names of all files, default: nuscenes')
    return parser


def write_infos(args: argparse.Namespace) -> int:
    """Write the files and say where they are; returns the exit code."""
    # Here, as importing it takes seconds, in which nobody wants to wait for help.
    from mmdet3d_custom.datasets.info_file import create_info_files
    try:
        written = create_info_files(args.root, args.version, args.prefix)
    except OSError as error:
        raise UserError('root', f'cannot write to {args.root}: {error}',
                        remedy='make room there, or get the right to write') from error
    for split, path in written.items():
        print(f'{split}: {path}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(write_infos, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
