"""What building from a config raises becomes one message with a remedy; other errors pass."""
from __future__ import annotations

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS

from mmdcn.checkpoints import CheckpointError
from mmdcn.engine.build_errors import explain_build_error, readable_errors, walk
from mmdcn.errors import UserError


@HOOKS.register_module()
class _HookOfTheTest:
    def __init__(self, interval, priority=1):
        pass


def explained(**cfg):
    whole = Config(dict(hooks=[dict(cfg)]))
    with pytest.raises(UserError) as caught, readable_errors(whole):
        HOOKS.build(dict(cfg))
    return str(caught.value)


def test_unknown_type_is_named_with_its_place():
    message = explained(type='_HookOfTheTst', interval=1)
    assert "'_HookOfTheTst' at hooks.0.type" in message and 'did you mean _HookOfTheTest' in message
    assert 'custom_imports' in message


def test_unknown_key_is_named_with_a_near_one():
    message = explained(type='_HookOfTheTest', interval=1, prioriti=3)
    assert "does not take 'prioriti' at hooks.0.prioriti" in message
    assert 'did you mean priority' in message


def test_missing_argument_is_named():
    message = explained(type='_HookOfTheTest')
    assert "'interval'" in message and 'add it to the config' in message


@pytest.mark.parametrize('error', [RuntimeError('out of memory'), KeyError('x'), TypeError('no')])
def test_other_errors_pass_unchanged(error):
    assert explain_build_error(error, {}) is None
    with pytest.raises(type(error)) as caught, readable_errors(Config({})):
        raise error
    assert caught.value is error


@pytest.mark.parametrize('kind', [UserError, CheckpointError])
def test_readable_errors_stay_what_they_are(kind):
    error = kind('x', 'got 1', '2')
    with pytest.raises(kind) as caught, readable_errors(Config({})):
        raise error
    assert caught.value is error


def test_walk_goes_through_lists_and_dictionaries():
    assert dict(walk({'a': [{'b': 1}], 'c': (2,)})) == {
        'a': [{'b': 1}], 'a.0': {'b': 1}, 'a.0.b': 1, 'c': (2,), 'c.0': 2}
