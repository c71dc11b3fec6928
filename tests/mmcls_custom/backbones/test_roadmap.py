"""The path from ResNet to ConvNeXt: published operations, known ends, gradients, refusals."""
from __future__ import annotations

import pytest
import torch

from mmcls_custom.backbones.roadmap import ROADMAP_STEPS, RoadmapResNet
from mmdcn.analysis.complexity import build_on_meta, count

# arXiv:2201.03545, tables 10 and 11. Step 13 of the first is printed as 4.46, a misprint: neither
# its figure 2 (4.2) nor table 11 has a change there.
RESNET50 = (4.09, 4.09, 4.53, 4.42, 2.35, 5.27, 4.64, 4.07, 4.10, 4.15, 4.15, 4.15, 4.15, None,
            4.49)
RESNET200 = (15.01, 15.01, 14.52, 14.38, 7.23, 16.76, 15.68, 14.63, 14.70, 14.81, 14.81, 14.81,
             14.81, 14.81, 15.35)
STEPS = range(len(ROADMAP_STEPS))
# Not narrower: with fewer than 8 channels torch 2.13's oneDNN writes past the end of the gradients
# of a channels-last 1x1 convolution of stride 2, on CPUs without AVX-512.
SMALL = dict(depths=(1, 2, 1, 1), width=8)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def complexity(*args, **kwargs):
    """Parameters in M and multiply-adds in G with a linear layer to 1000 classes."""
    model = build_on_meta(lambda: RoadmapResNet(*args, out_indices=(3,), pool=True, **kwargs))
    got = count(model, (1, 3, 224, 224))
    channels = model.stages[3][-1].cout
    return (got.params + 1000 * (channels + 1)) / 1e6, (got.macs + 1000 * channels) / 1e9


@pytest.mark.parametrize('arch, step, published', [
    *(('resnet50', step, macs) for step, macs in enumerate(RESNET50) if macs),
    *(('resnet200', step, RESNET200[step]) for step in (0, 2, 4, 5, 7, 9, 14))])
def test_published_operations(arch, step, published):
    assert complexity(step, arch)[1] == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize('kernel, published', [(9, 4.21), (11, 4.29)])
def test_published_operations_of_larger_kernels(kernel, published):
    assert complexity(9, kernel_size=kernel)[1] == pytest.approx(published, rel=0.01)


def test_known_parameter_counts():
    assert complexity(0)[0] == pytest.approx(25.557, abs=5e-4)  # torchvision's ResNet-50
    gammas = 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768
    assert complexity(14)[0] * 1e6 == pytest.approx(28589128 - gammas, abs=1)  # ConvNeXt-T


def copy_in_order(source, target):
    """Copy weights by their order in the two models; shapes must agree."""
    pairs = list(zip(source.state_dict().values(), target.state_dict().values(), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    for a, b in pairs:
        b.copy_(a)


def test_step_0_is_resnet():
    resnet = pytest.importorskip('torchvision.models.resnet')
    theirs = resnet.ResNet(resnet.Bottleneck, [1, 2, 1, 1]).eval()
    ours = RoadmapResNet(0, dict(depths=(1, 2, 1, 1), width=64), out_indices=(3,), pool=True).eval()
    theirs.fc = torch.nn.Identity()
    copy_in_order(theirs, ours)
    x = torch.randn(1, 3, 75, 90)
    torch.testing.assert_close(ours(x)[0], theirs(x))


@pytest.mark.parametrize('pool', [True, False])
def test_step_14_is_convnext_without_layer_scale(pool):
    convnext = pytest.importorskip('mmpretrain.models').ConvNeXt
    theirs = convnext(dict(depths=[1, 2, 1, 1], channels=[8, 16, 32, 64]), out_indices=[0, 1, 2, 3],
                      layer_scale_init_value=0.0, gap_before_final_norm=pool)
    theirs.eval()
    ours = RoadmapResNet(14, dict(depths=(1, 2, 1, 1), width=8), pool=pool).eval()
    renamed = {}
    for name, value in theirs.state_dict().items():
        for old, new in (('depthwise_conv', 'layers.0'), ('.norm.', '.layers.1.'),
                         ('pointwise_conv1', 'layers.2'), ('pointwise_conv2', 'layers.4'),
                         ('downsample_layers.0', 'stem'), ('downsample_layers', 'downsamples')):
            name = name.replace(old, new)
        # Linear layers there are 1x1 convolutions here.
        renamed[name] = value[..., None, None] if 'layers' in name and value.ndim == 2 else value
    ours.load_state_dict(renamed)
    x = torch.randn(1, 3, 75, 97)
    for a, b in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('step', STEPS)
def test_shapes_and_gradients(step):
    model = RoadmapResNet(step, SMALL, drop_path_rate=0.0)
    outs = model(torch.randn(2, 3, 64, 96))
    assert [out.shape[2:] for out in outs] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [out.shape[1] for out in outs] == [(32 if step < 6 else 8) * 2**i for i in range(4)]
    sum(out.square().mean() for out in outs).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize('step', STEPS)
def test_initialised_step_keeps_signals_alive(step):
    model = RoadmapResNet(step, dict(depths=(1, 1, 1, 1), width=16))
    model.init_weights()
    out = model(torch.randn(4, 3, 64, 64))[-1]
    assert out.isfinite().all() and out.std() > 1e-3


def parts(step):
    """Number of norms and activations in a block of stage 1 that has no shortcut."""
    block = RoadmapResNet(step, SMALL).stages[1][1]
    kinds = [type(module).__name__ for module in block.modules()]
    return (sum('Norm' in kind for kind in kinds), sum(kind in ('ReLU', 'GELU') for kind in kinds))


def test_norms_and_activations_of_a_block():
    assert [parts(step) for step in (0, 9, 10, 11, 12, 13, 14)] == [
        (3, 3), (3, 3), (3, 3), (3, 1), (1, 1), (1, 1), (1, 1)]


def test_layer_depth():
    model = RoadmapResNet(14, SMALL)
    depths = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.')
              for name, _ in model.named_parameters()}
    assert {n for _, n in depths.values()} == {7}
    assert depths['stem.0.weight'][0] == 0
    assert depths['stages.1.1.layers.0.weight'][0] == 3
    assert depths['downsamples.1.1.weight'][0] == depths['stages.1.0.layers.0.weight'][0] == 2
    assert depths['norm3.weight'][0] == 6
    assert model.get_layer_depth('head.weight', 'backbone.') == (6, 7)


@pytest.mark.parametrize('kwargs, words', [
    (dict(step=15), 'step is not valid: got 15'),
    (dict(step=7, kernel_size=9), 'kernel_size is not valid: got 9'),
    (dict(step=9, kernel_size=8), 'kernel_size is not valid: got 8'),
    (dict(step=1, arch='resnet18'), "arch is not valid: got 'resnet18'"),
    (dict(step=1, arch=dict(depths=(1, 1, 1), width=4)), 'depths is not valid'),
    (dict(step=1, arch=dict(depth=3)), 'arch is not valid'),
    (dict(step=1, out_indices=(3, 1)), 'out_indices is not valid'),
])
def test_refusals(kwargs, words):
    with pytest.raises(ValueError, match=words):
        RoadmapResNet(**kwargs)
