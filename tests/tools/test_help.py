"""What help texts, docstrings, pages and the Makefile name exists: paths, options, targets."""
from __future__ import annotations

import argparse
import ast
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

PATH = re.compile(r'(?<![\w./-])(?:configs|docs|requirements|tools)/[\w./-]*\w')
OPTION = re.compile(r'(?<![\w-])--[a-z][\w-]*')
LINK = re.compile(r'\]\(([^)#:\s]+)[)#]')
TARGET = re.compile(r'`make ([a-z][a-z-]*)')
# A program of the project or another one, and its arguments up to the end of the command.
COMMAND = re.compile(r'(?<![\w.])(?:tools/(?:\w+/)*)?(\w+\.(?:py|sh)|pip|pytest|compute-sanitizer)'
                     r'(?= )([^`|#;\n]*)')
# Rooms that do not exist yet are announced in one paragraph.
PLANS = re.compile(r'Rooms to come.*?\n\n', re.DOTALL)
SCRIPTS = {'dist_train.sh': 'train.py', 'dist_test.sh': 'test.py', 'slurm_train.sh': 'train.py',
           'slurm_test.sh': 'test.py'}
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def programs() -> list[Path]:
    """Every file in tools/ that does something when it is run."""
    return [path for path in sorted((ROOT / 'tools').rglob('*.py'))
            if "if __name__ == '__main__':" in path.read_text()]


@functools.cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """The command line of every program and launch script, by its file name."""
    found = {}
    for path in programs():
        name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        found[path.name] = importlib.import_module(name).build_parser()
    assert len(found) == len(programs()) > 15
    return found | {script: found[tool] for script, tool in SCRIPTS.items()}


def options_of(name: str) -> set[str]:
    """The options of one program."""
    return set(parsers()[name]._option_string_actions)


def missing_paths(text: str) -> list[str]:
    """Paths below configs/, docs/, requirements/ and tools/ that do not exist."""
    return [path for path in PATH.findall(PLANS.sub('', text)) if not (ROOT / path).exists()]


def wrong_options(text: str, own: set[str]) -> list[str]:
    """Options that the program does not have on whose command line they stand.

    Args:
        text: Any text.
        own: Options that may stand outside of command lines.
    """
    text = text.replace('\\\n', ' ')
    found = []
    for name, arguments in COMMAND.findall(text):
        if name in parsers():
            found += [f'{name} {option}' for option in OPTION.findall(arguments)
                      if option not in options_of(name)]
    rest = COMMAND.sub('', text)
    return found + [option for option in OPTION.findall(rest) if option not in own]


def described() -> Iterator[tuple[str, str, str]]:
    """Name, help and docstring of every program."""
    for path in programs():
        tree = ast.parse(path.read_text())
        yield path.name, parsers()[path.name].format_help(), ast.get_docstring(tree) or ''


def test_help_of_every_tool_names_what_exists() -> None:
    wrong = {}
    for name, usage, docstring in described():
        assert usage.startswith(f'usage: {name} '), f'{name} has another name in its help'
        assert docstring, f'{name} does not say what it does'
        text = f'{usage}\n{docstring}'
        if bad := missing_paths(text) + wrong_options(text, options_of(name)):
            wrong[name] = bad
    assert not wrong


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_pages_name_what_exists(page: Path) -> None:
    text = page.read_text()
    every = set().union(*map(options_of, parsers()))
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    assert missing_paths(text) == []
    assert wrong_options(text, every) == []
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []
    assert [target for target in TARGET.findall(text) if target not in targets] == []


def test_makefile_and_launch_scripts_call_what_exists() -> None:
    for path in (ROOT / 'Makefile', *sorted((ROOT / 'tools').glob('*.sh'))):
        text = path.read_text()
        assert missing_paths(text) == [], path.name
        assert [found for found in wrong_options(text, set()) if ' ' in found] == [], path.name


def test_docstrings_of_configs_and_parts_of_tools_name_what_exists() -> None:
    wrong = {}
    for path in [*(ROOT / 'configs').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]:
        text = ast.get_docstring(ast.parse(path.read_text())) or ''
        bad = missing_paths(text) + [found for found in wrong_options(text, set()) if ' ' in found]
        if bad:
            wrong[str(path.relative_to(ROOT))] = bad
    assert not wrong


@pytest.mark.parametrize(('text', 'paths', 'options'), [
    ('python tools/train.py configs/mini/absent.py --amp', ['configs/mini/absent.py'], []),
    ('tools/absent.py, docs/operators.md#x and `docs/absent.md`.',
     ['tools/absent.py', 'docs/absent.md'], []),
    ('python tools/train.py CONFIG --out x', [], ['train.py --out']),
    ('train.py CONFIG \\\n  --amp --tta', [], ['train.py --tta']),
    ('`test.py CONFIG --tta`, never `--absent`', [], ['--absent']),
    ('tools/dist_train.sh CONFIG 8 --show-dir x', [], ['dist_train.sh --show-dir']),
    ('pip install --no-deps x; tools/test.py --out x  # --absent', [], ['--absent']),
    ('a -- b, a--b, --- and data/mini/coco/absent.json', [], []),
])
def test_what_does_not_exist_is_found(text: str, paths: list[str], options: list[str]) -> None:
    assert missing_paths(text) == paths
    assert wrong_options(text, {'--tta'}) == options
