"""Turns what building from a config raises into one clear message."""
from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.config import Config
from mmengine.registry import Registry

from mmdcn.engine.run_errors import explain_run_error
from mmdcn.errors import UserError, relayed_error, shorten_text, suggest

# What constructors raise about their arguments.
_OF_ARGUMENTS = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError,
                 TypeError, ValueError)


def walk(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Yield (key path, value) of every entry of a nested config, outermost first."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        here = f'{path}.{key}' if path else str(key)
        yield here, value
        if isinstance(value, dict | list | tuple):
            yield from walk(value, here)


def _registered_names(registry: Registry) -> set[str]:
    """Names in a registry and its ancestors."""
    names: set[str] = set()
    node: Registry | None = registry
    while node is not None:
        names.update(node.module_dict)
        node = node.parent
    return names


def _find_registry(scope: str, name: str) -> Registry | None:
    """The registry called ``name`` of a scope, searched from the root registries."""
    for root in vars(mmengine_registry).values():
        if isinstance(root, Registry) and root.name == name:
            return root.children.get(scope, root)
    return None


def _key_paths(cfg: dict[str, Any], type_name: str) -> str:
    paths = [path for path, value in walk(cfg)
             if path.rsplit('.', 1)[-1] == 'type' and value == type_name]
    return f' at {", ".join(paths[:3])}' if paths else ''


def explain_build_error(error: Exception, cfg: dict[str, Any]) -> UserError | None:
    """A readable form of an error raised while objects were built from a config.

    Args:
        error: What a registry or a constructor raised.
        cfg: The whole config, to find the key path of the culprit.

    Returns:
        The readable error, or None where the error is not the config's fault as far as is known.
    """
    if relayed := relayed_error(error):
        return relayed
    text = str(error.args[0]) if error.args else ''
    unknown = re.search(r'(\S+) is not in the (\S+?)::([\w ]+?) registry', text)
    if isinstance(error, KeyError) and unknown:
        name, scope, kind = unknown.groups()
        registry = _find_registry(scope, kind)
        names = _registered_names(registry) if registry else set()
        return UserError(
            'type', f'got {name!r}{_key_paths(cfg, name)}',
            f'a name registered as {kind} in the scope {scope}', suggest(name, names),
            'A class of your own must be listed in custom_imports of the config.')
    keyword = re.search(r"([\w.]+)\(\) got an unexpected keyword argument '(\w+)'", text)
    if isinstance(error, TypeError) and keyword:
        owner, key = keyword.groups()
        owner = owner.replace('.__init__', '')
        where = [path for path, _ in walk(cfg) if path.rsplit('.', 1)[-1] == key]
        at = f' at {", ".join(where[:3])}' if where else ''
        return UserError('key', f'{owner} does not take {key!r}{at}',
                         remedy=suggest(key, _parameters(error)))
    missing = re.search(r'([\w.]+)\(\) missing \d+ required \S+ argument.*', text)
    if isinstance(error, TypeError) and missing:
        return UserError('config', missing.group(0), remedy='add it to the config')
    return _refused_arguments(error, cfg)


def _refused_arguments(error: Exception, cfg: dict[str, Any]) -> UserError | None:
    """The error for what a constructor raised, named with its class; None outside of them."""
    if not isinstance(error, _OF_ARGUMENTS):
        return None
    frames = list(traceback.walk_tb(error.__traceback__))
    built = [frame.f_locals.get('obj_cls') for frame, _ in frames
             if frame.f_code.co_name == 'build_from_cfg']
    if not built or built[-1] is None:
        return None
    name = built[-1].__name__
    frame, line = frames[-1]
    text = f'{type(error).__name__}: {error}' if str(error) else type(error).__name__
    return UserError('config', f'{name}{_key_paths(cfg, name)} refuses its arguments '
                     f'({shorten_text(text)})', remedy='correct them in the config',
                     details=f'raised at {frame.f_code.co_filename}:{line}')


def _parameters(error: Exception) -> list[str]:
    """Parameter names of the constructor that refused a keyword, read from the traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    build = trace.tb_frame.f_locals if trace is not None else {}
    target = build.get('obj_cls')
    if target is None:
        return []
    names: list[str] = []
    for owner in getattr(target, '__mro__', [target]):
        init = owner.__init__ if inspect.isclass(owner) else owner
        try:
            names += [name for name in inspect.signature(init).parameters
                      if name not in ('self', 'args', 'kwargs')]
        except (TypeError, ValueError):
            continue
    return names


@contextmanager
def readable_errors(cfg: Config) -> Iterator[None]:
    """Turn errors of the config, its data and the machine into UserError; others pass."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        explained = explain_run_error(error) or explain_build_error(error, cfg._cfg_dict)
        if explained is None:
            raise
        raise explained from error
