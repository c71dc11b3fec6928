"""Checks data sets before a run: files exist and are whole, classes agree with annotations.

Works on any mmengine data set through its attributes; wrappers (repeat, concat, class balance,
multi-image mixing) are looked through. What the annotations of one kind of data set must hold is
known to its task's plug-in, which registers a :class:`DataCheck` for the class; a data set of which
no class is registered is named in the log as not checked.
"""
from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pickle import UnpicklingError
from typing import Any, TypeVar

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from torch import nn

from mmdcn.data.files import check_files
from mmdcn.errors import UserError


class DataCheck:
    """What one kind of data set is checked for beyond its files; each method may do nothing."""

    def prepare(self, dataset: Any) -> None:
        """Give a built leaf data set what it needs to check samples as they are read.

        Unlike :meth:`check` it is called on every process, also for data that is trusted.

        Args:
            dataset: Data set without wrappers; changed in place.
        """

    def check(self, dataset: Any, where: str) -> None:
        """Compare the class list of a built leaf data set with what its annotations hold.

        Args:
            dataset: Data set without wrappers.
            where: Its key path in the config, for the message.

        Raises:
            UserError: They disagree; the message is a readable difference.
        """

    def check_model(self, model: nn.Module, dataset: Any, where: str) -> None:
        """Compare the heads of the model with the classes of a built leaf data set.

        Args:
            model: The whole model, wrapped or not.
            dataset: Data set without wrappers.
            where: Its key path in the config, for the message.

        Raises:
            UserError: A head predicts another number of classes.
        """

    def explain(self, dataset_cfg: dict[str, Any], where: str, error: Exception) -> None:
        """Raise a clearer UserError than the one with which the data set refused to be built.

        Args:
            dataset_cfg: Its config.
            where: Its key path in the config, for the message.
            error: What its constructor raised.
        """


_CHECKS: dict[type, DataCheck] = {}
_Check = TypeVar('_Check', bound=type[DataCheck])


def register_check(*kinds: type) -> Callable[[_Check], _Check]:
    """Class decorator: an object of the DataCheck serves data sets of these classes.

    Args:
        kinds: Data set classes; subclasses without a check of their own are served, too.
    """
    def register(check: _Check) -> _Check:
        _CHECKS.update(dict.fromkeys(kinds, check()))
        return check
    return register


def find_check(kind: type) -> DataCheck | None:
    """The check registered for a class of data sets or its nearest base, or None."""
    return next((_CHECKS[base] for base in kind.__mro__ if base in _CHECKS), None)


def build_dataset(dataset_cfg: dict[str, Any], where: str) -> Any:
    """Build and load a data set.

    Args:
        dataset_cfg: Its config.
        where: Its key path in the config, for messages.

    Raises:
        UserError: Files or keys are missing, or the data set refuses its classes.
    """
    keys = ('data_root', 'ann_file', 'data_prefix')
    place = ', '.join(f'{key}={dataset_cfg[key]!r}' for key in keys if dataset_cfg.get(key))
    try:
        dataset = DATASETS.build(dataset_cfg)
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
    except UserError:
        raise
    except (AttributeError, SyntaxError, UnpicklingError) as error:
        _explain(dataset_cfg, where, error)
        raise
    except json.JSONDecodeError as error:
        _explain(dataset_cfg, where, error)
        raise UserError(f'annotation file of {where}', f'not JSON ({error})',
                        details=place) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(where, f'{error.filename or error} does not exist',
                        remedy='see the README for how to get or make the data',
                        details=place) from error
    except AssertionError as error:
        _explain(dataset_cfg, where, error)
        raise UserError(where, str(error), details=place) from error
    except (IndexError, KeyError, RuntimeError, ValueError) as error:
        if ' registry' in str(error):
            raise
        _explain(dataset_cfg, where, error)
        reason = f'the annotations lack {error}' if isinstance(error, LookupError) else error
        remedy = ''
        if 'need at least one array' in str(error):
            reason, remedy = 'it holds no image', 'check its paths and its filter_cfg'
        raise UserError(where, str(reason), remedy=remedy, details=place) from error
    for leaf in leaves(dataset):
        check = find_check(type(leaf))
        if check is not None:
            check.prepare(leaf)
    return dataset


def _explain(dataset_cfg: dict[str, Any], where: str, error: Exception) -> None:
    with DATASETS.switch_scope_and_registry(None) as registry:
        kind = registry.get(dataset_cfg['type'])
    check = find_check(kind) if isinstance(kind, type) else None
    if check is not None:
        with suppress(FileNotFoundError):  # the error at hand comes before
            check.explain(dataset_cfg, where, error)


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets that read files, without their wrappers."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from leaves(part)
    elif hasattr(dataset, 'dataset'):
        yield from leaves(dataset.dataset)
    else:
        yield dataset


def _check_annotations(dataset: Any, where: str) -> None:
    """Run the check of the data set's kind, or say that there is none."""
    check = find_check(type(dataset))
    if check is not None:
        check.check(dataset, where)
        return
    print_log(f'{where}: annotations not checked, {type(dataset).__name__} is of no kind that has '
              'a check', logger='current', level=logging.INFO)


def drop_samples(dataset: Any, bad: Sequence[Sequence[int]]) -> None:
    """Take samples out of the leaves of a data set, in place; its wrappers count anew.

    Args:
        dataset: A built data set, wrapped or not.
        bad: Indices to drop, per leaf in the order of :func:`leaves`.
    """
    for leaf, indices in zip(leaves(dataset), bad, strict=True):
        if indices:
            dropped = set(indices)
            leaf.get_subset_([index for index in range(len(leaf)) if index not in dropped])
    _recount(dataset)


def _recount(dataset: Any) -> None:
    parts = getattr(dataset, 'datasets', None) or (
        [dataset.dataset] if hasattr(dataset, 'dataset') else [])
    for part in parts:
        _recount(part)
    if parts:
        dataset._fully_initialized = False
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        if hasattr(dataset, 'num_samples'):
            dataset.num_samples = len(dataset.dataset)


def check_model(model: nn.Module, dataset: Any, where: str) -> None:
    """Compare the heads of a model with the classes of every leaf of a data set.

    Raises:
        UserError: A head predicts another number of classes.
    """
    for leaf in leaves(dataset):
        check = find_check(type(leaf))
        if check is not None:
            check.check_model(model, leaf, where)


def compare_classes(config: list[str], found: list[str], where: str, source: str) -> None:
    """Raise UserError with a difference if two class lists are not the same, order included."""
    if config == found:
        return
    lines = []
    only_config = [name for name in config if name not in found]
    only_found = [name for name in found if name not in config]
    if only_config:
        lines.append(f'  in the config only:      {shorten(only_config)}')
    if only_found:
        lines.append(f'  in the annotations only: {shorten(only_found)}')
    if not only_config and not only_found:
        first = next(i for i, pair in enumerate(zip(config, found, strict=False))
                     if pair[0] != pair[1])
        lines.append(f'  same names, other order from position {first}: '
                     f'config {shorten(config[first:])}; annotations {shorten(found[first:])}')
    raise UserError(f'{where}.metainfo.classes', f'they disagree with {source}',
                    'exactly the names of the annotations in their order',
                    'labels follow that order, so set metainfo=dict(classes=...) of the data set '
                    'to it', '\n'.join(lines))


def shorten(names: Sequence[Any]) -> str:
    """The first ten of some names or numbers, and how many there are."""
    shown = ', '.join(str(name) for name in names[:10])
    return shown + (f', ... ({len(names)} in all)' if len(names) > 10 else '')


def check_dataset(dataset: Any, where: str, skip_bad: bool,
                  warn: Callable[[str], None]) -> list[list[int]]:
    """Check every leaf of a data set; changes nothing.

    Args:
        dataset: A built data set, wrapped or not.
        where: Its key path in the config, for messages.
        skip_bad: Do not raise for samples whose files are missing or damaged.
        warn: Receives a line about samples to drop.

    Returns:
        Indices of the samples to drop, per leaf in the order of :func:`leaves`.

    Raises:
        UserError: Files are broken (without ``skip_bad``), nothing is left, or classes disagree.
    """
    bad: list[list[int]] = []
    for leaf in leaves(dataset):
        bad.append([])
        if not hasattr(leaf, 'get_data_info'):
            continue
        if len(leaf) == 0:
            raise UserError('data set', f'{where} is empty: no image is left after filtering',
                            'at least one',
                            'check data_root, data_prefix, ann_file and filter_cfg')
        _check_annotations(leaf, where)
        findings = check_files(leaf)
        if not findings.bad_samples:
            continue
        summary = (f'{len(findings.bad_samples)} of {findings.total} samples have broken files '
                   f'({len(findings.missing)} missing, {len(findings.damaged)} damaged)')
        if not skip_bad:
            raise UserError(where, summary, details=findings.describe(),
                            remedy='fix them, or carry on without them: `skip_bad=True`')
        if len(findings.bad_samples) == findings.total:
            raise UserError(where, f'{summary}. Nothing is left of the data set',
                            remedy='fix them', details=findings.describe())
        warn(f'skipped {where}: {summary}\n{findings.describe()}')
        bad[-1] = findings.bad_samples
    return bad


def check_together(dataset: Any, where: str, skip_bad: bool,
                    warn: Callable[[str], None]) -> int:
    """Check on the first process and let all processes do what it found.

    Args:
        dataset: A built data set, wrapped or not; samples to skip are dropped in place.
        where: Its key path in the config, for messages.
        skip_bad: Drop samples whose files are missing or damaged.
        warn: Receives a line about dropped samples.

    Returns:
        Number of dropped samples.

    Raises:
        UserError: As :func:`check_dataset`, on every process.
    """
    outcome: list[list[list[int]] | UserError | None] = [None]
    if is_main_process():
        try:
            outcome[0] = check_dataset(dataset, where, skip_bad, warn)
        except UserError as error:
            outcome[0] = error
    broadcast_object_list(outcome)
    bad = outcome[0]
    if isinstance(bad, UserError):
        raise bad
    skipped = sum(map(len, bad))
    if skipped:
        drop_samples(dataset, bad)
    return skipped
