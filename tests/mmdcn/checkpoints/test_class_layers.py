"""Which layers follow the list of classes: heads as OpenMMLab builds them, and what is not one."""
from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from mmdcn.checkpoints import CheckpointError, load_state_dict
from mmdcn.checkpoints.class_layers import find_class_layers


class Head(nn.Module):
    """A head that says its number of classes."""

    def __init__(self, num_classes: int, **layers: nn.Module) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name, layer in layers.items():
            self.add_module(name, layer)


class Detector(nn.Module):
    """Layers of each kind; the model says a number of classes itself, as mmseg's do."""

    def __init__(self, classes: int, width: int = 256, hidden: int = 64) -> None:
        super().__init__()
        self.num_classes = classes
        self.backbone = nn.Sequential(*(nn.Linear(width, width) for _ in range(20)))
        self.neck = nn.Linear(width, hidden)
        self.rpn = Head(1, conv=nn.Linear(hidden, hidden), cls=nn.Linear(hidden, 3))
        self.bbox = Head(
            classes, shared=nn.Linear(hidden, hidden), fc_cls=nn.Linear(hidden, classes + 1),
            fc_reg=nn.Linear(hidden, 4 * classes), anchors=nn.Conv2d(hidden, 9 * classes, 3),
            yolo=nn.Conv2d(hidden, 3 * (5 + classes), 1))
        self.mask = Head(classes, conv_logits=nn.Conv2d(hidden, classes, 1))
        self.queries = Head(classes, label_embedding=nn.Embedding(classes, hidden))
        self.points = Head(classes, fcs=nn.Conv1d(hidden + classes, hidden, 1))


DEPENDENT = {'bbox.fc_cls', 'bbox.fc_reg', 'bbox.anchors', 'bbox.yolo', 'mask.conv_logits',
             'queries.label_embedding', 'points.fcs'}


@pytest.mark.parametrize(('old', 'new'), [(80, 8), (8, 80), (80, 1), (1, 80), (1000, 3), (2, 3),
                                          (20, 21), (365, 80)])
def test_layers_of_every_kind_begin_anew(old, new):
    torch.manual_seed(0)
    target, source = Detector(new), Detector(old)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    report = load_state_dict(target, source.state_dict(), source='a.pth', other_classes=True)
    assert {key.rpartition('.')[0] for key in report.reinitialised} == DEPENDENT
    assert report.ratio == 1 and not report.mismatched and not report.missing
    for key, value in target.state_dict().items():
        kept = before if key in report.reinitialised else source.state_dict()
        assert torch.equal(value, kept[key]), key
    line = next(line for line in str(report).splitlines() if 're-initialised' in line)
    assert f'bbox.fc_cls.weight (checkpoint ({old + 1}, 64), model ({new + 1}, 64))' in line


def test_elsewhere_it_is_strict():
    with pytest.raises(CheckpointError, match='does not fit the model'):
        load_state_dict(Detector(8), Detector(80).state_dict(), source='a.pth')


@pytest.mark.parametrize('source', [
    lambda: Detector(80, width=128), lambda: Detector(80, hidden=128), lambda: Detector(8, 128),
    lambda: Detector(80, hidden=32),
    lambda: nn.ModuleDict({'bbox': Detector(80).bbox, 'mask': Detector(80).mask})],
    ids=['backbone', 'neck', 'same classes', 'narrow', 'head alone'])
def test_another_architecture_is_refused(source):
    target = Detector(8)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(CheckpointError, match='does not fit the model'):
        load_state_dict(target, source().state_dict(), source='a.pth', other_classes=True)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_heads_agree_on_the_number_of_classes():
    model = nn.ModuleDict({'a': Head(8, fc=nn.Linear(4, 8)), 'b': Head(8, fc=nn.Linear(4, 8)),
                           'c': Head(3, fc=nn.Linear(4, 3))})
    alike = {'a.fc.weight': ((80, 4), (8, 4)), 'b.fc.weight': ((80, 4), (8, 4)),
             'c.fc.weight': ((5, 4), (3, 4))}
    assert find_class_layers(model, alike) == alike
    unlike = {**alike, 'b.fc.weight': ((70, 4), (8, 4))}
    assert find_class_layers(model, unlike).keys() == {'c.fc.weight'}


@pytest.mark.parametrize(('old', 'new'), [
    ((80, 4), (8, 5)), ((80, 4, 1), (8, 4)), ((4,), (4,)), ((80,), (7 * 5 * 11,)), ((), (8,)),
    ((512,), (1024,))])
def test_shapes_that_classes_do_not_explain(old, new):
    model = nn.ModuleDict({'a': Head(8)})
    assert not find_class_layers(model, {'a.x': (old, new)})


CONFIGS = {
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': {
        'roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg',
        'roi_head.mask_head.conv_logits'},
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py': {
        *(f'bbox_head.cls_branches.{i}' for i in range(7)), 'dn_query_generator.label_embedding'},
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': {'panoptic_head.cls_embed'},
    'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py': {
        'decode_head.conv_seg', 'auxiliary_head.conv_seg'},
    'mmpretrain::resnet/resnet18_8xb32_in1k.py': {'head.fc'},
}


def build(name: str, classes: int) -> nn.Module:
    """The model of an installed config on the meta device, with so many classes everywhere."""
    from mmengine.hub import get_config
    from mmengine.registry import MODELS

    from mmdcn.analysis.complexity import build_on_meta
    from mmdcn.engine.runner import import_task_modules

    def change(node: object) -> None:
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            if key in ('num_classes', 'num_things_classes'):
                node[key] = classes
            elif key == 'num_stuff_classes':
                node[key] = 0
            elif key == 'class_weight' and isinstance(item, list):
                node[key] = [1.0] * classes + [0.1]
            elif isinstance(item, dict | list):
                change(item)

    cfg = get_config(name).model
    change(cfg)
    for part in ('backbone', 'pretrained'):
        cfg.pop('pretrained', None)
        cfg.get(part, {}).pop('init_cfg', None)
    scope = name.partition('::')[0]
    import_task_modules(scope)
    with DefaultScope.overwrite_default_scope(scope):
        return build_on_meta(lambda: MODELS.build(cfg))


@pytest.mark.parametrize('name', CONFIGS)
def test_heads_of_openmmlab(name):
    models = build(name, 80), build(name, 8)
    shapes = [{key: tuple(value.shape) for key, value in model.state_dict().items()}
              for model in models]
    mismatched = {key: (shapes[0][key], shape) for key, shape in shapes[1].items()
                  if shapes[0][key] != shape}
    found = find_class_layers(models[1], mismatched)
    assert found == mismatched
    assert {key.rpartition('.')[0] for key in found} == CONFIGS[name]
