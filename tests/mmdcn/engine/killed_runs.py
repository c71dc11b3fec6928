"""Runs of six iterations that are killed, each at another moment of their second checkpoint.

    python -m tests.mmdcn.engine.killed_runs FOLDER

leaves a folder for each moment. The processes are forked before any thread is started.
"""
from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from mmengine.registry import DATASETS, MODELS

from mmdcn.engine import saving
from tests.mmdcn.data.images import write_images
from tests.mmdcn.engine.conftest import QuietRunner, Toy, ToyImages, toy_config

# The iteration from which the run continues afterwards.
MOMENTS = {'half written': 2, 'before the rename': 2, 'after the rename': 4, 'before the note': 4,
           'before pruning': 4}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str) -> None:
    """Let this process die at a moment."""
    replace, write_bytes, write_text = os.replace, Path.write_bytes, saving.write_text

    def half(path: Path, content: bytes) -> int:
        if path.name.startswith('.iter_4'):
            write_bytes(path, content[:len(content) // 2])
            die()
        return write_bytes(path, content)

    def rename(source: Path, target: Path) -> None:
        at = target.name == 'iter_4.pth'
        if at and moment == 'before the rename':
            die()
        replace(source, target)
        if at and moment == 'after the rename':
            die()

    def note(path: Path, text: str) -> None:
        at = text.endswith('iter_4.pth')
        if at and moment == 'before the note':
            die()
        write_text(path, text)
        if at and moment == 'before pruning':
            die()

    if moment == 'half written':
        Path.write_bytes = half
    os.replace, saving.write_text = rename, note


def main(root: Path) -> None:
    for name, kind in (('Toy', Toy), ('ToyImages', ToyImages)):
        (MODELS if name == 'Toy' else DATASETS).module_dict[name] = kind
    for moment in MOMENTS:
        folder = root / moment
        folder.mkdir(parents=True)
        write_images(folder / 'images', 4)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        arm(moment)
        QuietRunner.from_cfg(toy_config(
            folder, train_cfg=dict(type='IterBasedTrainLoop', max_iters=6),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False,
                                               max_keep_ckpts=1)))).train()
        os._exit(0)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
