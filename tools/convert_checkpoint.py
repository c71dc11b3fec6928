#!/usr/bin/env python
"""Convert a published checkpoint to the names and shapes of this code base.

    python tools/convert_checkpoint.py SRC DST --family NAME
    python tools/convert_checkpoint.py --list
"""
from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmengine.registry import MODELS  # noqa: E402

from mmdcn.analysis.complexity import build_on_meta  # noqa: E402
from mmdcn.apis import cli, config  # noqa: E402
from mmdcn.apis.inference import task_scope  # noqa: E402
from mmdcn.apis.results import check_outputs  # noqa: E402
from mmdcn.checkpoints import (  # noqa: E402
    load_state_dict,
    read_checkpoint,
    save_checkpoint,
)
from mmdcn.checkpoints.converters import (  # noqa: E402
    FAMILIES,
    Conversion,
    Options,
    convert,
    detect,
    tensors_of,
)
from mmdcn.checkpoints.loading import AVERAGED, WRAPPERS  # noqa: E402
from mmdcn.errors import UserError  # noqa: E402

_SUFFIXES = ('.safetensors', '.pth', '.pt')
# What of an old file's meta mmengine keeps as dataset_meta.
_DATASET_META = {'CLASSES': 'classes', 'PALETTE': 'palette'}


def build_parser() -> argparse.ArgumentParser:
    """Command line of the tool."""
    parser = argparse.ArgumentParser(
        prog='convert_checkpoint.py', description='Convert a published checkpoint.')
    add = parser.add_argument
    add('source', nargs='?', metavar='SRC', help='published file, .pth or .safetensors')
    add('target', nargs='?', metavar='DST', help='file to write; the suffix decides the format')
    add('--family', help='family of the file (default: told by its keys); see --list')
    add('--list', action='store_true', help='print the families')
    add('--inverse', action='store_true', help='convert back to the published names')
    add('--no-ema', dest='averaged', action='store_false',
        help='take the weights of the last step where the file has averaged ones, too')
    add('--model-config', metavar='CONFIG',
        help='check the result against the model of a config before it is written')
    add('--force', action='store_true', help='overwrite the target')
    add('--verbose', action='store_true', help='print every renamed, resized and dropped key')
    cli.add_checkpoint_options(parser)
    group = parser.add_argument_group('wishes, for the families that know them').add_argument
    group('--pos-grid', type=int, nargs=2, metavar=('H', 'W'),
          help='interpolate position embeddings to H x W tokens (default: keep the stored grid)')
    group('--patch-size', type=int, help='pixels of a patch (default: 16)')
    group('--window', type=int, help='attention window in tokens (default: 14)')
    group('--global-size', type=int, help='token map of global attention (default: 64)')
    group('--table-resize', choices=['bicubic', 'geometric'],
          help='how relative position tables are resized (default: bicubic)')
    group('--kernel-points', type=int, help='points of the deformable kernel (default: 9)')
    group('--keep-depthwise', action='store_true', default=None,
          help="keep DCNv3's depthwise convolution for a DCNv4 with dw_kernel_size")
    group('--class-rows', metavar='ROWS',
          help='rows of the class layers to keep, such as 0-18 or 3,0,7-9, or @FILE with them')
    return parser


def _parse_rows(text: str) -> tuple[int, ...]:
    """``0-2,5`` as (0, 1, 2, 5); ``@FILE`` holds the same, also over several lines."""
    if text.startswith('@'):
        config.check_file(text[1:], 'class_rows')
        text = ','.join(Path(text[1:]).read_text(errors='replace').replace(',', ' ').split())
    rows: list[int] = []
    for part in text.split(','):
        first, dash, last = part.partition('-')
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UserError('class_rows', f'got {text!r}',
                            'row numbers and ranges such as 0-18 or 3,0,7-9')
        rows += range(int(first), int(last or first) + 1)
    if not rows:
        raise UserError('class_rows', f'got {text!r}', 'rising ranges')
    return tuple(rows)


def _options(args: argparse.Namespace) -> Options:
    given = {name: getattr(args, name) for name in vars(Options())
             if getattr(args, name) is not None}
    for name in ('patch_size', 'window', 'global_size', 'kernel_points', 'pos_grid'):
        values = given.get(name, 1)
        if min(values if isinstance(values, list) else [values]) < 1:
            raise UserError(name, f'got {values}', 'positive numbers')
    if 'pos_grid' in given:
        given['pos_grid'] = tuple(given['pos_grid'])
    if 'class_rows' in given:
        given['class_rows'] = _parse_rows(given['class_rows'])
    return Options(**given)


def _inputs(args: argparse.Namespace) -> list[Path]:
    """The files that are read; a source in several files has an index that names them."""
    source = Path(args.source)
    inputs = [source, Path((args.class_rows or '').removeprefix('@'))]
    if source.name.endswith('.index.json') and source.is_file():
        text = source.read_text(errors='replace')
        inputs += [path for path in source.parent.iterdir() if f'"{path.name}"' in text]
    return inputs


def _check_paths(args: argparse.Namespace) -> None:
    if args.source is None or args.target is None:
        raise UserError('source' if args.source is None else 'target', 'got too few files',
                        'one to read and one to write (or --list)')
    target = Path(args.target)
    if target.suffix not in _SUFFIXES:
        raise UserError('target', f'got {target}', f'a name that ends in {", ".join(_SUFFIXES)}')
    check_outputs({'target': target}, _inputs(args))
    if target.is_dir() or (target.exists() and not args.force):
        raise UserError('target', f'{target} exists', 'a new file',
                        'choose another name or give --force')


def _check_against(path: str, result: Conversion, target: str) -> None:
    """Report how the result fits the model of a config, or its backbone if that is all there is."""
    cfg = config.load_config(path)
    with task_scope(cfg):
        model = build_on_meta(lambda: MODELS.build(cfg.model))
    if hasattr(model, 'backbone') and not any('backbone.' in key for key in result.state_dict):
        model = model.backbone
    with warnings.catch_warnings():
        # A model without values swallows those of the checkpoint, and says so for each.
        warnings.filterwarnings('ignore', message='for .*: copying from a non-meta parameter')
        report = load_state_dict(model, result.state_dict, source=target)
    print(f'against {type(model).__name__} of {path}:\n{report}')


def _print_report(result: Conversion, verbose: bool) -> None:
    print(f'  kept:    {len(result.kept)}')
    print(f'  renamed: {len(result.renamed)}')
    print(f'  dropped: {len(result.dropped)}')
    print(f'  resized: {len(result.resized)}')
    if verbose:
        for old, new in result.renamed.items():
            print(f'  renamed  {old} -> {new}')
        for name, (old, new) in result.resized.items():
            print(f'  resized  {name} {old} -> {new}')
        for name in result.edited:
            print(f'  changed  {name}')
        for name in result.dropped:
            print(f'  dropped  {name}')
    for note in result.notes:
        print(f'  note: {cli.in_flags(note, build_parser())}')
    if not result.changed:
        print('  note: nothing changed; the file loads as it is')


def convert_checkpoint(args: argparse.Namespace) -> int:
    """Convert as the command line says; returns the exit code."""
    if args.list:
        for family in FAMILIES.values():
            back = ' [--inverse]' if family.invert else ''
            print(f'{family.name:16} {family.summary}{back}')
        return 0
    _check_paths(args)
    options = _options(args)
    checkpoint = read_checkpoint(args.source)
    family, how = args.family, 'as asked'
    if family is None:
        if args.inverse:
            raise UserError('family', 'got none', 'the family to convert back to',
                            '--inverse does not guess')
        found, evidence = detect(tensors_of(checkpoint, args.averaged))
        family, how = found.name, f'told by {" and ".join(evidence)}'
    result = convert(checkpoint, family, options, inverse=args.inverse, averaged=args.averaged)
    print(f'{args.source}: family {family} ({how})')
    _print_report(result, args.verbose)
    averages = [key for key in AVERAGED if key in checkpoint]
    if averages and args.averaged and any(key in checkpoint for key in set(WRAPPERS[1:])
                                          - set(AVERAGED)):
        print(f'  note: the file has averaged weights ({averages[0]}); --no-ema takes the others')
    if args.model_config:
        _check_against(args.model_config, result, args.target)
    save_checkpoint(args.target, result.state_dict, _meta(checkpoint, family, args))
    print(f'wrote {args.target}: {len(result.state_dict)} tensors')
    return 0


def _meta(checkpoint: dict, family: str, args: argparse.Namespace) -> dict:
    """Where the file comes from, and the class names an old one carried."""
    meta = {} if args.inverse else {'converted_by': family, 'source': Path(args.source).name}
    old = checkpoint.get('meta')
    old = old if isinstance(old, dict) else {}
    names = {new: old[name] for name, new in _DATASET_META.items()
             if isinstance(old.get(name), list | tuple)}
    if names:
        meta['dataset_meta'] = names
    return meta


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    return cli.run_tool(convert_checkpoint, build_parser(), argv)


if __name__ == '__main__':
    sys.exit(main())
