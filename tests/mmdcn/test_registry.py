"""Shared names resolve to the project's classes from every OpenMMLab scope."""
from __future__ import annotations

import importlib
from types import ModuleType

import pytest
from mmengine.registry import DefaultScope

from mmcls_custom import backbones, necks
from mmdcn.engine.optimizers import LayerDecayOptimWrapperConstructor

PLUGINS = {'mmpretrain': 'mmcls_custom', 'mmdet': 'mmdet_custom', 'mmseg': 'mmseg_custom',
           'mmdet3d': 'mmdet3d_custom'}


def registries(scope: str) -> ModuleType:
    """Registries of a scope, with all that OpenMMLab itself registers there."""
    pytest.importorskip('mmdet' if scope == 'mmdet3d' else scope)
    importlib.import_module(PLUGINS[scope])
    importlib.import_module(f'{scope}.models')
    return importlib.import_module(f'{scope}.registry')


@pytest.mark.parametrize('scope', PLUGINS)
def test_shared_names_resolve_to_ours(scope):
    found = registries(scope)
    with DefaultScope.overwrite_default_scope(scope):
        for home in (backbones, necks):
            for name in home.__all__:
                assert found.MODELS.get(name) is getattr(home, name)
        constructor = found.OPTIM_WRAPPER_CONSTRUCTORS.get('LayerDecayOptimWrapperConstructor')
    assert constructor is LayerDecayOptimWrapperConstructor
