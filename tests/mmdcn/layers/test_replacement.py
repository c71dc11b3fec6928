"""replace_deformable_attention on hand-made models and on those of mmdet."""
from __future__ import annotations

import copy
import io
import subprocess
import sys
import warnings

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from mmdcn.layers import MultiScaleDeformableAttention, replace_deformable_attention
from tests.helpers import ROOT
from tests.mmdcn.layers.cases import MmcvAttention, assert_same, inputs, outcome, pair


class Subclass(MmcvAttention):
    """A subclass that computes something else."""

    def forward(self, query, *args, **kwargs):
        return 2 * query


def network() -> nn.Module:
    """One layer under two names, one in a list, one in a wrapper, none of them as built."""
    model = nn.Module()
    for name, position in (('first', 0), ('second', 1)):
        setattr(model, name, pair()[position])
    model.again = model.second
    model.layers = nn.ModuleList([nn.Identity(), nn.Sequential(pair()[1]), pair()[1].float()])
    return model


# ------------------------------------------------------------------------- what stays the same
def test_replaces_every_instance_under_all_its_names():
    model = network()
    assert replace_deformable_attention(model) == ['second', 'layers.1.0', 'layers.2']
    assert not any(type(module) is MmcvAttention for module in model.modules())
    assert model.again is model.second
    assert type(model.first) is MultiScaleDeformableAttention
    assert isinstance(model.layers[2], MultiScaleDeformableAttention)


def test_a_second_call_changes_nothing():
    model = network()
    replace_deformable_attention(model)
    classes = [type(module) for module in model.modules()]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert replace_deformable_attention(model) == []
    assert [type(module) for module in model.modules()] == classes


def test_parameters_keys_modes_and_dtypes_stay():
    model = network()
    model.layers[1].eval()
    model.second.value_proj.bias.requires_grad_(False)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    before = dict(model.named_parameters())
    keys, modes = list(model.state_dict()), [module.training for module in model.modules()]
    replace_deformable_attention(model)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)
    assert list(model.state_dict()) == keys
    assert [module.training for module in model.modules()] == modes
    assert not model.second.value_proj.bias.requires_grad
    assert model.layers[2].value_proj.weight.dtype == torch.float32
    weight = model.second.output_proj.weight
    old = weight.detach().clone()
    model.second(**inputs(model.second)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(weight, old)


@pytest.mark.parametrize('batch_first', [True, False])
@pytest.mark.parametrize('options', [{}, {'value_proj_ratio': 0.5}, {'num_levels': 1}], ids=str)
def test_a_replaced_layer_computes_the_same(options, batch_first):
    _, layer = pair(batch_first=batch_first, **options)
    arguments = inputs(layer, mask=True)
    expected = outcome(layer, arguments)
    assert replace_deformable_attention(layer) == ['']  # the model itself
    assert type(layer).forward is MultiScaleDeformableAttention.forward
    assert_same(outcome(layer, arguments), expected)


def test_hooks_stay():
    _, layer = pair()
    seen = []
    layer.register_forward_pre_hook(lambda module, args: seen.append('before'))
    layer.register_forward_hook(lambda module, args, output: seen.append('after'))
    layer.output_proj.register_forward_hook(lambda module, args, output: seen.append('inside'))
    replace_deformable_attention(layer)
    layer(**inputs(layer))
    assert seen == ['before', 'inside', 'after']


def test_a_layer_compiled_before_is_compiled_again():
    torch.compiler.reset()
    _, layer = pair(batch_first=True)
    arguments = inputs(layer)
    layer.compile(backend='eager')
    expected = layer(**arguments)
    replace_deformable_attention(layer)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.testing.assert_close(layer(**arguments), expected)
    names = {event.key for event in profile.key_averages()}
    assert 'ops_dcn::ms_deform_attn_forward' in names
    assert 'aten::grid_sampler_2d' not in names


# ------------------------------------------------------------------------ what is left alone
def test_subclasses_are_left_alone_and_named():
    model = nn.ModuleDict({'a': Subclass(8, 2), 'b': MmcvAttention(8, 2)})
    with pytest.warns(UserWarning, match=r'left as they are.*: a \(Subclass\); derive them from'):
        assert replace_deformable_attention(model) == ['b']
    assert type(model['a']) is Subclass
    query = torch.randn(3, 1, 8)
    assert torch.equal(model['a'](query), 2 * query)


def test_a_layer_with_its_own_forward_is_left_alone_and_named():
    layer = MmcvAttention(8, 2)
    layer.forward = lambda query: 3 * query
    with pytest.warns(UserWarning, match=r'the model itself \(MultiScaleDeformableAttention\)'):
        assert replace_deformable_attention(layer) == []
    assert type(layer) is MmcvAttention


def test_not_a_module():
    with pytest.raises(ValueError, match='model is not valid: got list, expected a torch.nn.Mod'):
        replace_deformable_attention([MmcvAttention(8, 2)])


def test_mmcvs_operators_are_not_imported():
    code = ('import sys, torch\n'
            'from mmdcn.layers import MultiScaleDeformableAttention, replace_deformable_attention\n'
            'assert replace_deformable_attention(torch.nn.Sequential('
            'MultiScaleDeformableAttention(8, 2))) == []\n'
            'print([name for name in sys.modules if name.startswith("mmcv.ops")])')
    got = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                         check=True)
    assert got.stdout.strip() == '[]'


# ----------------------------------------------------------------------- copies of a replaced one
def saved(model: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


@pytest.mark.parametrize('duplicate', [
    copy.deepcopy, lambda model: torch.load(saved(model), weights_only=False)])
def test_copies(duplicate):
    model = network()
    replace_deformable_attention(model)
    twin = duplicate(model)
    assert isinstance(twin.second, MmcvAttention)
    assert twin.again is twin.second
    assert twin.second.value_proj.weight is not model.second.value_proj.weight
    arguments = inputs(model.second)
    assert torch.equal(twin.second(**arguments), model.second(**arguments))


def test_a_saved_model_loads_where_mmcvs_operators_are_absent(tmp_path):
    _, layer = pair()
    arguments = inputs(layer)
    replace_deformable_attention(layer)
    torch.save({'layer': layer, 'inputs': arguments, 'output': layer(**arguments).detach()},
               tmp_path / 'all.pth')
    code = ('import sys, torch\n'
            f'saved = torch.load({str(tmp_path / "all.pth")!r}, weights_only=False)\n'
            'got = saved["layer"](**saved["inputs"])\n'
            'print(torch.allclose(got, saved["output"]), type(saved["layer"]).__name__, '
            '"mmcv.ops" in sys.modules)')
    got = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                         check=True)
    assert got.stdout.split() == ['True', 'MultiScaleDeformableAttention', 'False']


# --------------------------------------------------------------------------- models of mmdet
def build(config: dict) -> nn.Module:
    """A model of mmdet, as its tools build it."""
    pytest.importorskip('mmdet.models')
    from mmdet.registry import MODELS
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(config)


def dino() -> nn.Module:
    """DINO on a ResNet-18, small but with all its parts."""
    attention = dict(embed_dims=32, num_heads=4, num_levels=3, dropout=0.0)
    ffn = dict(embed_dims=32, feedforward_channels=64, ffn_drop=0.0)
    return build(dict(
        type='DINO', num_queries=12, num_feature_levels=3, with_box_refine=True, as_two_stage=True,
        data_preprocessor=dict(type='DetDataPreprocessor'),
        backbone=dict(type='ResNet', depth=18, out_indices=(2, 3)),
        neck=dict(type='ChannelMapper', in_channels=[256, 512], kernel_size=1, out_channels=32,
                  act_cfg=None, norm_cfg=dict(type='GN', num_groups=4), num_outs=3),
        encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
        decoder=dict(num_layers=2, return_intermediate=True, post_norm_cfg=None, layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=32, num_heads=4, dropout=0.0),
            cross_attn_cfg=attention, ffn_cfg=ffn)),
        positional_encoding=dict(num_feats=16, normalize=True, offset=0.0, temperature=20),
        bbox_head=dict(type='DINOHead', num_classes=3, embed_dims=32, sync_cls_avg_factor=True,
                       loss_cls=dict(type='FocalLoss', use_sigmoid=True, loss_weight=1.0),
                       loss_bbox=dict(type='L1Loss', loss_weight=5.0),
                       loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
        dn_cfg=dict(label_noise_scale=0.5, box_noise_scale=1.0,
                    group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=10)),
        train_cfg=dict(assigner=dict(type='HungarianAssigner', match_costs=[
            dict(type='FocalLossCost', weight=2.0),
            dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='IoUCost', iou_mode='giou', weight=2.0)])),
        test_cfg=dict(max_per_img=10)))


def scatter(model: nn.Module) -> None:
    """Move all samples off the pixel centers, where the derivative jumps and rounding decides."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, MmcvAttention):
                for parameter in module.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))


DINO_NAMES = [f'{part}.layers.{index}.{kind}_attn' for part, kind in
              (('encoder', 'self'), ('decoder', 'cross')) for index in (0, 1)]


def batch() -> dict:
    """Two images of different size, so that one is padded, with a box each."""
    structures = pytest.importorskip('mmdet.structures')
    samples = []
    for height, width in ((96, 128), (80, 112)):
        sample = structures.DetDataSample(metainfo=dict(
            img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[10.0, 12.0, 60.0, 70.0]]),
                                           labels=torch.tensor([1]))
        samples.append(sample)
    return dict(inputs=[torch.randint(0, 256, (3, *sample.img_shape), dtype=torch.uint8)
                        for sample in samples], data_samples=samples)


def losses_and_gradients(model: nn.Module, data: dict) -> dict[str, torch.Tensor]:
    """All losses of a training step and the gradients of all parameters."""
    torch.manual_seed(1)  # the queries to be denoised are random
    model.zero_grad()
    losses = model(**data, mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()
             if parameter.grad is not None}
    assert all(f'{name}.sampling_offsets.weight' in grads for name in DINO_NAMES)
    return {name: value.detach() for name, value in losses.items()} | grads


@pytest.mark.slow
def test_dino_trains_and_predicts_the_same():
    model = dino()
    model.init_weights()
    scatter(model)
    model.backbone.eval()  # else running statistics move between the two runs
    data = model.data_preprocessor(batch(), training=True)
    expected = losses_and_gradients(model, data)
    with torch.no_grad():
        predicted = [sample.pred_instances for sample in
                     copy.deepcopy(model).eval()(**data, mode='predict')]
    assert replace_deformable_attention(model) == DINO_NAMES
    got = losses_and_gradients(model, data)
    assert_same(got, expected, 1e-3, 1e-4)
    with torch.no_grad():
        results = [sample.pred_instances for sample in model.eval()(**data, mode='predict')]
    for result, known in zip(results, predicted, strict=True):
        torch.testing.assert_close(result.scores, known.scores, rtol=1e-3, atol=1e-4)


def test_init_weights_of_dino_does_the_same_before_and_after():
    states = []
    for replace in (False, True):
        torch.manual_seed(2)
        model = dino()
        if replace:
            assert replace_deformable_attention(model) == DINO_NAMES
        model.init_weights()
        states.append(model.state_dict())
    for name in states[0]:
        torch.testing.assert_close(states[1][name], states[0][name], rtol=0, atol=1e-6, msg=name)
    assert not states[1]['encoder.layers.0.self_attn.sampling_offsets.weight'].any()


def pixel_decoder() -> nn.Module:
    """Mask2Former's pixel decoder; mmseg builds the same class."""
    decoder = build(ConfigDict(
        type='MSDeformAttnPixelDecoder', in_channels=[8, 16, 24, 32], strides=[4, 8, 16, 32],
        feat_channels=32, out_channels=32, num_outs=3, norm_cfg=dict(type='GN', num_groups=4),
        encoder=dict(num_layers=2, layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=32, num_heads=4, num_levels=3, num_points=4, dropout=0.0,
                               batch_first=True),
            ffn_cfg=dict(embed_dims=32, feedforward_channels=64, num_fcs=2, ffn_drop=0.0,
                         act_cfg=dict(type='ReLU', inplace=True)))),
        positional_encoding=dict(num_feats=16, normalize=True)))
    decoder.init_weights()
    return decoder


def test_pixel_decoder_of_mask2former():
    decoder = pixel_decoder()
    scatter(decoder)
    features = [torch.randn(2, channels, 64 // stride, 96 // stride)
                for channels, stride in zip((8, 16, 24, 32), (4, 8, 16, 32), strict=True)]
    results = []
    for replace in (False, True):
        if replace:
            assert (replace_deformable_attention(decoder)
                    == [f'encoder.layers.{index}.self_attn' for index in (0, 1)])
        decoder.zero_grad()
        mask, scales = decoder(features)
        (mask.square().mean() + sum(scale.square().mean() for scale in scales)).backward()
        results.append({'mask': mask.detach()}
                       | {f'scale {index}': scale.detach() for index, scale in enumerate(scales)}
                       | {name: p.grad.clone() for name, p in decoder.named_parameters()
                          if p.grad is not None})
    assert 'encoder.layers.0.self_attn.sampling_offsets.weight' in results[0]
    assert_same(*results[::-1], 1e-3, 1e-4)
