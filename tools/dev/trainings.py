"""What ``learn.py`` and ``claims.py`` share: running a tool, trainings whose results are kept."""
from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tools.dev import learn_results
from tools.dev.learn_results import Outcome, Record

ROOT = learn_results.ROOT


def run(command: list[str], log: Path, label: str) -> str:
    """Run a tool, its output in ``log``; show one progress line every 20 seconds.

    Raises:
        SystemExit: The tool failed; the end of its output is shown.
    """
    shown = time.time()
    with log.open('w') as sink, subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            sink.write(line)
            if time.time() - shown > 20 and re.search(r'(Iter|Epoch)\((train|val|test)\)', line):
                shown = time.time()
                progress = re.sub(r'.* - (INFO - )?', '', line.rstrip())
                print(f'  {label}: {progress[:110]}', flush=True)
    text = log.read_text()
    if process.returncode:
        print('\n'.join(text.splitlines()[-25:]), file=sys.stderr)
        sys.exit(f'error: {" ".join(command)} failed with exit code {process.returncode}; '
                 f'log: {log}')
    return text


def known(name: str, record: Record | None, digests: dict[str, str], again: bool) -> bool:
    """Whether a record still holds, and need not be trained again; says why."""
    if record is None:
        print(f'{name}: no result yet', flush=True)
        return False
    since = f'since {record.commit} of {record.date}'
    if changed := learn_results.changed(record, digests):
        print(f'{name}: {", ".join(changed)} changed {since}', flush=True)
        return False
    print(f'{name}: nothing changed {since}' + (', trained again' if again else ', kept'),
          flush=True)
    return not again


def obtain(name: str, config: str, options: Sequence[str], results: Path, again: bool,
           train: Callable[[], Outcome]) -> tuple[Record, bool]:
    """The record of a training, kept or made; one whose files change meanwhile is not kept.

    Args:
        name: Of the training, its key in ``results``.
        config: Its config file.
        options: Its ``KEY=VALUE`` options.
        results: File of the records.
        again: Train although nothing has changed.
        train: Does it.

    Returns:
        The record, and whether it was trained now.
    """
    old = learn_results.read_records(results).get(name)
    digests = learn_results.digests(config, options)
    if known(name, old, digests, again):
        return old, False
    commit = learn_results.current_commit(config)
    outcome = train()
    record = Record(outcome, digests, commit, learn_results.machine(), learn_results.today())
    if meanwhile := learn_results.changed(record, learn_results.digests(config, options)):
        print(f'{name}: {", ".join(meanwhile)} changed while it trained; the result is not kept')
        return replace(record, commit=f'{commit}, then changed'), True
    # Read again: another call may have added its rows meanwhile.
    records = learn_results.read_records(results)
    learn_results.write_records(results, {**records, name: record})
    return record, True


def table(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table, columns as wide as their widest cell; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ['| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
             + ' |' for row in rows]
    return '\n'.join([lines[0], '|' + '|'.join('-' * (width + 2) for width in widths) + '|',
                      *lines[1:]])
