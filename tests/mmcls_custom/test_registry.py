"""Shared names resolve to the project's classes from every OpenMMLab scope."""
from __future__ import annotations

import importlib

import pytest
from mmengine.registry import DefaultScope

from mmcls_custom import backbones
from mmcls_custom.engine.optimizers import LayerDecayOptimWrapperConstructor

SCOPES = ('mmpretrain', 'mmdet', 'mmseg', 'mmdet3d')


def _registries(scope):
    try:
        importlib.import_module(f'{scope}.models')
        return importlib.import_module(f'{scope}.registry')
    except (ImportError, AssertionError) as error:
        pytest.skip(f'{scope} cannot be imported: {error}')


@pytest.mark.parametrize('scope', SCOPES)
def test_backbones_resolve(scope):
    registry = _registries(scope).MODELS
    with DefaultScope.overwrite_default_scope(scope):
        for name in backbones.__all__:
            assert registry.get(name) is getattr(backbones, name)


@pytest.mark.parametrize('scope', SCOPES)
def test_optimizer_constructor_resolves(scope):
    registry = _registries(scope).OPTIM_WRAPPER_CONSTRUCTORS
    with DefaultScope.overwrite_default_scope(scope):
        found = registry.get('LayerDecayOptimWrapperConstructor')
    assert found is LayerDecayOptimWrapperConstructor
