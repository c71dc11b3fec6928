"""The plain ViT backbone: windows, relative positions, gradients, published counts and names."""
from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from mmcls_custom.backbones import PlainViT
from mmcls_custom.backbones.plain_vit_layers import Attention, Block, RelativePositionBias
from mmdcn.analysis.complexity import count
from mmdcn.engine.optimizers import LayerDecayOptimWrapperConstructor

# Patches of 4 pixels keep images small; 48 px are 12x12 tokens, 4 windows a side.
SMALL = dict(channels=32, depth=4, heads=2, patch_size=4, window_size=3, image_size=48,
             pretrain_image_size=24, global_blocks=(1, 3))
REL_POS = pytest.mark.parametrize('rel_pos', ['shared_table', 'decomposed', 'none'])


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def randomise(model):
    """Values that no zero or one hides, relative positions of the size of the logits included."""
    with torch.no_grad():
        for name, param in model.named_parameters():
            if 'rel_pos' in name or 'relative_position' in name:
                param.normal_()
            elif param.ndim == 1:
                param.add_(0.3 * torch.randn_like(param))
            else:
                param.normal_(std=param[0].numel()**-0.5)
    return model


def build_meta(*args, **kwargs):
    with torch.device('meta'):
        return PlainViT(*args, **kwargs)


def table_bias(table, height, width):
    """Bias (heads, H*W, H*W) of a table of exactly this map, by the index rule, pair by pair."""
    y, x = (t.flatten() for t in torch.meshgrid(
        torch.arange(height), torch.arange(width), indexing='ij'))
    dy, dx = (t[:, None] - t[None, :] for t in (y, x))
    return table[(dy + height - 1) * (2 * width - 1) + dx + width - 1].permute(2, 0, 1)


def plain_attention(attn, x, bias=0.0):
    """Softmax attention over the rows of x (L, C), written out head by head."""
    q, k, v = (attn.qkv(x)[:, i * x.shape[1]:(i + 1) * x.shape[1]] for i in range(3))
    heads = []
    for q_h, k_h, v_h in zip(*(t.chunk(attn.heads, dim=1) for t in (q, k, v)), strict=True):
        heads.append((q_h @ k_h.t() / q_h.shape[1]**0.5, v_h))
    logits = torch.stack([logit for logit, _ in heads]) + bias
    out = logits.softmax(-1) @ torch.stack([v for _, v in heads])
    return attn.proj(out.transpose(0, 1).reshape(x.shape))


def plain_block(block, x, attended):
    """The block's sums around an attention result, without scaling or dropping."""
    x = x + attended
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


@pytest.mark.parametrize('size', [56, 64])
def test_windowed_block(size):
    block = randomise(Block(16, 2, 32, window=14)).double()
    table = randomise(RelativePositionBias(14, 2)).double()
    x = torch.randn(1, size, size, 16, dtype=torch.float64)
    bias = table_bias(table.relative_position_bias_table, 14, 14)
    # 56 is four windows; 64 is padded with zeros, behind the norm, to 70, five windows.
    padded = torch.zeros(-(-size // 14) * 14, -(-size // 14) * 14, 16, dtype=torch.float64)
    padded[:size, :size] = block.norm1(x[0])
    attended = torch.empty_like(padded)
    for y in range(0, len(padded), 14):
        for z in range(0, len(padded), 14):
            window = padded[y:y + 14, z:z + 14].reshape(196, 16)
            attended[y:y + 14, z:z + 14] = plain_attention(block.attn, window, bias).reshape(
                14, 14, 16)
    expected = plain_block(block, x, attended[None, :size, :size])
    torch.testing.assert_close(block(x, table(14, 14)), expected, rtol=1e-10, atol=1e-10)


def test_global_block_without_bias_is_plain_attention():
    block = randomise(Block(16, 4, 32)).double()
    x = torch.randn(2, 5, 9, 16, dtype=torch.float64)
    attended = torch.stack([plain_attention(block.attn, block.norm1(row.flatten(0, 1)))
                            for row in x]).reshape(x.shape)
    expected = plain_block(block, x, attended)
    for bias in (None, RelativePositionBias(9, 4).double()(5, 9)):
        torch.testing.assert_close(block(x, bias), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('size', [(6, 6), (4, 7)])
def test_decomposed_positions_agree_with_mmpretrain(size):
    vit_sam = pytest.importorskip('mmpretrain.models.backbones.vit_sam')
    ours = randomise(Attention(16, 2, axis_grid=6)).double()
    theirs = vit_sam.Attention(16, num_heads=2, use_rel_pos=True, input_size=(6, 6)).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, *size, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)


def test_gradient_of_a_shared_table_is_the_sum_over_its_blocks():
    model = randomise(PlainViT(**SMALL, out_type='last')).double()
    image = torch.randn(2, 3, 48, 40, dtype=torch.float64)
    out, = model(image)
    out.sum().backward()
    copies = [copy.deepcopy(model.global_rel_pos if block.window is None else model.window_rel_pos)
              for block in model.blocks]
    x = model.patch_embed(image)
    x = x + model._positions(12, 10)
    for block, table in zip(model.blocks, copies, strict=True):
        table.zero_grad()
        x = block(x, table(12, 10) if block.window is None else table(3, 3))
    torch.testing.assert_close(x.permute(0, 3, 1, 2), out)
    x.sum().backward()
    grads = [table.relative_position_bias_table.grad for table in copies]
    for table, blocks in ((model.window_rel_pos, (0, 2)), (model.global_rel_pos, (1, 3))):
        torch.testing.assert_close(table.relative_position_bias_table.grad,
                                   sum(grads[i] for i in blocks))


@pytest.mark.parametrize('arch, params', [('base', 86), ('large', 304), ('huge', 632)])
def test_weights_are_those_of_a_timm_vit(arch, params):
    model = build_meta(arch, layer_scale=0.1)
    cfg = model.cfg
    c, hidden = cfg.channels, 4 * cfg.channels
    expected = {'pos_embed': (1, 196, c), 'patch_embed.proj.weight': (c, 3, 16, 16),
                'patch_embed.proj.bias': (c,),
                'window_rel_pos.relative_position_bias_table': (27**2, cfg.heads),
                'global_rel_pos.relative_position_bias_table': (127**2, cfg.heads)}
    for i in range(cfg.depth):
        for name, shape in {
                'norm1.weight': (c,), 'norm1.bias': (c,), 'norm2.weight': (c,), 'norm2.bias': (c,),
                'attn.qkv.weight': (3 * c, c), 'attn.qkv.bias': (3 * c,),
                'attn.proj.weight': (c, c), 'attn.proj.bias': (c,),
                'mlp.fc1.weight': (hidden, c), 'mlp.fc1.bias': (hidden,),
                'mlp.fc2.weight': (c, hidden), 'mlp.fc2.bias': (c,),
                'gamma_1': (c,), 'gamma_2': (c,)}.items():
            expected[f'blocks.{i}.{name}'] = shape
    got = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    fresh = {name for name in got if name.startswith('resolution_modules.')}
    assert {name.rpartition('.')[0] for name in fresh} == {
        f'resolution_modules.{name}' for name in ('0.0', '0.1', '0.3', '1.0')}
    assert {name: shape for name, shape in got.items() if name not in fresh} == expected
    # Millions of parameters of a ViT (arXiv:2010.11929), nearly all of which are in its blocks.
    assert round(sum(p.numel() for n, p in model.named_parameters() if n not in fresh) / 1e6) == \
        pytest.approx(params, abs=1)


def test_tables_that_no_block_uses_do_not_exist():
    windows, whole = (PlainViT(**{**SMALL, 'global_blocks': ids}) for ids in ((), range(4)))
    assert windows.global_rel_pos is None and windows.window_rel_pos is not None
    assert whole.window_rel_pos is None and whole.global_rel_pos is not None
    grids = [block.attn.rel_pos_h.shape[0]
             for block in PlainViT(**SMALL, rel_pos='decomposed').blocks]
    assert grids == [5, 23, 5, 23]


@pytest.mark.parametrize('arch, global_blocks', [
    ('base', (2, 5, 8, 11)), ('large', (5, 11, 17, 23)), ('huge', (7, 15, 23, 31))])
def test_every_quarter_ends_in_a_global_block(arch, global_blocks):
    model = build_meta(arch)
    found = tuple(i for i, block in enumerate(model.blocks) if block.window is None)
    assert found == model.cfg.out_blocks == global_blocks


def test_random_init_is_that_of_beit():
    model = PlainViT('pico', layer_scale=0.1)
    for i, block in enumerate(model.blocks, 1):
        for layer, scale in ((block.attn.qkv, 1), (block.mlp.fc1, 1),
                             (block.attn.proj, (2 * i)**0.5), (block.mlp.fc2, (2 * i)**0.5)):
            assert layer.bias.abs().max() == 0
            largest = layer.weight.abs().max().item() * scale
            assert 0.0199 < largest <= 0.02 * (1 + 1e-6)
            # Standard deviation of a normal distribution cut at one deviation: 0.54 of it.
            assert layer.weight.std().item() * scale / 0.02 == pytest.approx(0.54, abs=0.02)
    assert 0 < model.pos_embed.abs().max() <= 0.02
    assert model.global_rel_pos.relative_position_bias_table.abs().max() == 0
    assert model.blocks[3].gamma_2.eq(0.1).all()


@REL_POS
@pytest.mark.parametrize('size', [(48, 48), (37, 22), (1, 5)])
def test_feature_sizes(rel_pos, size):
    outs = PlainViT(**SMALL, rel_pos=rel_pos, out_norm=True).eval()(torch.randn(2, 3, *size))
    rows, columns = (-(-s // 4) for s in size)
    sizes = [(4 * rows, 4 * columns), (2 * rows, 2 * columns), (rows, columns),
             (-(-rows // 2), -(-columns // 2))]
    assert [tuple(out.shape) for out in outs] == [(2, 32, *s) for s in sizes]
    assert all(out.is_contiguous() and out.isfinite().all() for out in outs)


def test_last_map_only():
    model = randomise(PlainViT(**SMALL, out_type='last')).eval()
    both = PlainViT(**SMALL).eval()
    assert not both.load_state_dict(model.state_dict(), strict=False).unexpected_keys
    both.resolution_modules[3] = torch.nn.Identity()
    image = torch.randn(1, 3, 40, 52)
    out, = model(image)
    assert model.out_channels == (32,) and out.shape == (1, 32, 10, 13)
    torch.testing.assert_close(out, both(image)[3])


def test_padding_the_image_is_left_to_the_model():
    model = randomise(PlainViT(**SMALL)).eval()
    image = torch.randn(1, 3, 38, 45)
    for got, expected in zip(model(image), model(F.pad(image, (0, 3, 0, 2))), strict=True):
        assert torch.equal(got, expected)


def test_positions_keep_their_axes():
    model = PlainViT(**SMALL)
    stored = model.pos_embed.detach().reshape(1, 6, 6, 32)
    assert torch.equal(model._positions(6, 6), stored)
    with torch.no_grad():
        model.pos_embed.copy_(torch.arange(6.).reshape(6, 1, 1).expand(6, 6, 32).reshape(1, 36, 32))
    resized = model._positions(12, 7).detach()
    assert resized.shape == (1, 12, 7, 32)
    assert (resized[0, :, 0, 0].diff() > 0).all() and resized.std(dim=2).max() < 1e-5


def test_without_position_embedding():
    model = randomise(PlainViT(**SMALL, abs_pos=False, frozen_stages=1)).eval()
    assert model.pos_embed is None and 'pos_embed' not in model.state_dict()
    zero = PlainViT(**SMALL).eval()
    zero.load_state_dict({**model.state_dict(), 'pos_embed': torch.zeros_like(zero.pos_embed)})
    image = torch.randn(1, 3, 48, 40)
    for got, expected in zip(model(image), zero(image), strict=True):
        torch.testing.assert_close(got, expected)


@REL_POS
def test_checkpointing_changes_nothing(rel_pos):
    image = torch.randn(2, 3, 44, 40)
    results = []
    for with_cp in (False, True, (1, 2)):
        torch.manual_seed(1)
        model = randomise(PlainViT(**SMALL, rel_pos=rel_pos, with_cp=with_cp, drop_path_rate=0.5))
        torch.manual_seed(2)
        outs = model.train()(image)
        sum(out.square().mean() for out in outs).backward()
        results.append([*outs, *(p.grad for p in model.parameters())])
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_what_a_training_step_computes_once_and_twice():
    model = PlainViT(**SMALL, with_cp=(1, 2)).train()
    calls = dict.fromkeys(['window_rel_pos', 'global_rel_pos',
                           *(f'blocks.{i}.norm1' for i in range(4))], 0)

    def count_call(name):
        calls[name] += 1

    for name in calls:
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: count_call(name))
    sum(out.sum() for out in model(torch.randn(1, 3, 24, 24))).backward()
    # Each table is gathered once for all its blocks; checkpointed blocks run again.
    assert list(calls.values()) == [1, 1, 1, 2, 2, 1]


def test_conv_blocks_start_as_identity():
    plain, conv = PlainViT(**SMALL), PlainViT(**SMALL, conv_blocks=(1, 3))
    found = conv.load_state_dict(plain.state_dict(), strict=False)
    assert found.missing_keys and all('.residual.' in name for name in found.missing_keys)
    image = torch.randn(1, 3, 48, 48)
    for got, expected in zip(conv(image), plain(image), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.slow
@REL_POS
def test_traces_without_a_break(rel_pos):
    torch._dynamo.reset()
    model = randomise(PlainViT(**SMALL, rel_pos=rel_pos))
    image = torch.randn(1, 3, 48, 40)
    outs = torch.compile(model, fullgraph=True, backend='aot_eager')(image)
    for got, expected in zip(outs, model(image), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_layer_decay_of_the_worked_example():
    # "ViT / BEiT", 12 blocks, rate 0.9: published scales.
    with torch.device('meta'):
        model = torch.nn.ModuleDict(dict(
            backbone=PlainViT('base', layer_scale=0.1, conv_blocks=(11,)),
            decode_head=torch.nn.Conv2d(768, 2, 1)))
    settings = LayerDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=1.0)),
        dict(layer_decay_rate=0.9, no_decay_keys=['norm', 'pos_embed', 'rel_pos'])
    ).param_settings(model)
    for name, scale, decays in [
            ('backbone.pos_embed', 0.254187, False),
            ('backbone.patch_embed.proj.weight', 0.254187, True),
            ('backbone.blocks.0.attn.qkv.weight', 0.28243, True),
            ('backbone.blocks.0.gamma_1', 0.28243, False),
            ('backbone.blocks.5.mlp.fc1.weight', 0.478297, True),
            ('backbone.blocks.11.norm2.weight', 0.9, False),
            ('backbone.global_rel_pos.relative_position_bias_table', 1.0, False),
            ('backbone.resolution_modules.0.0.weight', 1.0, True),
            ('backbone.blocks.11.residual.conv1.weight', 1.0, True),
            ('decode_head.weight', 1.0, True)]:
        assert settings[name].lr_scale == pytest.approx(scale, rel=1e-5), name
        assert settings[name].decay_mult == decays, name


@pytest.mark.parametrize('kwargs, words', [
    (dict(arch='tinny'), r"arch is not valid: got 'tinny', expected one of pico, base"),
    (dict(SMALL, rel_pos='swin'), "rel_pos is not valid: got 'swin'"),
    (dict(SMALL, depth=6), 'depth is not valid: got 6, expected a multiple of 4'),
    (dict(SMALL, channels=40), 'channels is not valid: got 40'),
    (dict(SMALL, heads=3), 'channels is not valid: got 32, expected a multiple of heads = 3'),
    (dict(SMALL, global_blocks=(4,)), 'global_blocks is not valid'),
    (dict(SMALL, conv_blocks=(1, 0)), 'conv_blocks is not valid'),
    (dict(SMALL, image_size=50), 'image_size is not valid: got 50'),
    (dict(SMALL, window_size=0), 'window_size is not valid: got 0'),
    (dict(SMALL, out_type='fpn'), "out_type is not valid: got 'fpn'"),
    (dict(SMALL, frozen_stages=5), 'frozen_stages is not valid: got 5'),
    (dict(SMALL, drop_path_rate=1.0), 'drop_path_rate is not valid'),
    (dict(SMALL, with_cp=(7,)), 'with_cp is not valid'),
    (dict(SMALL, layerscale=1.0), "PlainViT setting is not valid: got 'layerscale'"),
    (dict(channels=32), 'depth is not valid: got None'),
])
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        PlainViT(**kwargs)


@pytest.mark.parametrize('shape', [(3, 32, 32), (1, 4, 32, 32), (1, 3, 0, 32)])
def test_bad_input(shape):
    with pytest.raises(ValueError, match=r'expected \(N, 3, H, W\)'):
        PlainViT(**SMALL)(torch.zeros(shape))


def test_multiply_adds_of_the_backbone():
    # At 1024x1024, C = 768: 4096 tokens, 4900 in windows where 64 is padded to 70.
    c, tokens, in_windows = 768, 64**2, 70**2
    mlp = 8 * c**2 * tokens
    windowed = 4 * c**2 * in_windows + 2 * in_windows * 14**2 * c + mlp
    whole = 4 * c**2 * tokens + 2 * tokens**2 * c + mlp
    resolutions = c**2 * tokens * (4 + 16 + 4)
    patches = 3 * 16**2 * c * tokens
    got = count(build_meta('base'), (1, 3, 1024, 1024))
    assert got.macs == 8 * windowed + 4 * whole + resolutions + patches
