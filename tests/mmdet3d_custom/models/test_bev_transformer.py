"""The transformer's embeddings, initial weights and extra queries."""
from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet3d_custom')
from mmdet3d_custom.models.bev_attention import (  # noqa: E402
    SpatialCrossAttention,
    TemporalSelfAttention,
)
from mmdet3d_custom.models.bev_transformer import (  # noqa: E402
    ExtraQueries,
    PerceptionTransformerV2,
)
from mmdet3d_custom.models.bevformer_v2 import surround_matrices  # noqa: E402

ENCODER = dict(type='BEVFormerEncoder', num_layers=1, num_heads=2, feedforward_channels=16)
DECODER = dict(type='BEVFormerDecoder', num_layers=2, num_heads=2, feedforward_channels=16)


def make_transformer(**changes: object) -> PerceptionTransformerV2:
    return PerceptionTransformerV2(**dict(dict(
        embed_dims=8, num_cams=6, num_feature_levels=2, encoder=dict(ENCODER),
        decoder=dict(DECODER)), **changes))


def features() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(1, 6, 8, *size, generator=generator) for size in ((4, 10), (2, 5), (1, 3))]


def encode(model: PerceptionTransformerV2, maps: list[torch.Tensor]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    query, pos = (torch.randn(16, 8, generator=generator) for _ in range(2))
    return model.encode(maps, query, pos, surround_matrices(6, 64, 160)[None], (64, 160), (4, 4))


def test_all_matrices_are_xavier_and_deformable_layers_start_on_their_compass():
    model = make_transformer(num_frames=2)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    model.init_weights()
    # mmengine's walk must not touch it a second time.
    assert model.is_init
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or 'sampling_offsets' in name or 'attention_weights' in name:
            continue
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(parameter)
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.7 * bound < float(parameter.detach().abs().max()) <= bound, name
    deformable = [module for module in model.modules() if hasattr(module, 'sampling_offsets')]
    assert len(deformable) == 4  # two in the encoder, one in each layer of the decoder
    for module in deformable:
        assert not module.sampling_offsets.weight.any()
        assert module.sampling_offsets.bias.view(2, -1, 2)[0, 0].tolist() == [1, 0]
        assert not module.attention_weights.weight.any()
        assert not module.value_proj.bias.any()
    for module in model.modules():
        if isinstance(module, SpatialCrossAttention | TemporalSelfAttention):
            assert not module.output_proj.bias.any()
    assert not model.reference_points.bias.any()


def test_init_weights_of_a_parent_keeps_the_start():
    from mmengine.model import BaseModule

    class Parent(BaseModule):
        def __init__(self) -> None:
            super().__init__()
            self.child = make_transformer()

    parent = Parent()
    parent.init_weights()
    bias = parent.child.encoder.layers[0].attentions[0].sampling_offsets.bias
    assert bias.view(2, -1, 2)[0, 0].tolist() == [1, 0]


def test_cameras_and_levels_have_their_embeddings():
    model, maps = make_transformer().eval(), features()
    plain = encode(model, maps)
    with torch.no_grad():
        cameras, levels = model.cams_embeds.clone(), model.level_embeds.clone()
        model.cams_embeds.zero_()
        model.level_embeds.zero_()
    moved = [level + levels[index][:, None, None] + cameras[:, :, None, None]
             for index, level in enumerate(maps[:2])]
    torch.testing.assert_close(encode(model, moved), plain)
    assert not torch.allclose(encode(model, maps), plain, atol=1e-4)


def test_levels_beyond_the_encoders_are_ignored():
    model, maps = make_transformer().eval(), features()
    assert torch.equal(encode(model, maps), encode(model, maps[:2]))
    with pytest.raises(ValueError, match='features is not valid: got 1 levels'):
        encode(model, maps[:1])
    with pytest.raises(ValueError, match=r'of \(B, 6, 8, h, w\)'):
        encode(model, [level[:, :5] for level in maps])


def test_one_frame_has_no_fusion():
    model = make_transformer()
    assert model.fusion is None and not any('fusion' in name for name in model.state_dict())
    bev = torch.randn(1, 16, 8)
    assert model.fuse([bev], (4, 4)) is bev
    fusing = make_transformer(num_frames=3, fusion=dict(inter_channels=8, num_layers=1))
    assert fusing.fusion.layers[0].conv1.weight.shape == (8, 24, 3, 3)


def test_extra_queries_stand_behind_those_of_each_group():
    model = make_transformer().eval()
    regress = nn.ModuleList(nn.Linear(8, 10) for _ in range(2))
    bev, embedding = torch.randn(2, 16, 8), torch.randn(2 * 3, 16)  # two groups of three
    extra = ExtraQueries(torch.rand(2, 4, 3), torch.randn(2, 4, 8), torch.randn(2, 4, 8),
                         torch.tensor([[True, True, False, False], [True] * 4]))

    def decode(groups: int, rows: torch.Tensor, extra: ExtraQueries | None = None):
        return model.decode(bev, rows, (4, 4), regress, groups, extra)

    got = decode(2, embedding, extra)
    assert got.states[-1].shape == (2, 2 * 7, 8)
    references = got.references[0].unflatten(1, (2, 7))
    torch.testing.assert_close(references[:, :, 3:], extra.reference_points[:, None].expand(
        -1, 2, -1, -1))
    learned = model.reference_points(embedding[:, :8]).sigmoid().view(2, 3, 3)
    torch.testing.assert_close(references[:, :, :3], learned.expand(2, -1, -1, -1))
    # Each group is as if it were alone, and what fills up is as if it were not there.
    for group in range(2):
        alone = decode(1, embedding.view(2, 3, 16)[group], extra)
        torch.testing.assert_close(got.states[-1].unflatten(1, (2, 7))[:, group], alone.states[-1])
    short = ExtraQueries(*(part[:, :2] for part in extra))
    fewer = decode(2, embedding, short).states[-1].unflatten(1, (2, 5))
    torch.testing.assert_close(got.states[-1].unflatten(1, (2, 7))[0, :, :5], fewer[0])
    assert not torch.allclose(got.states[-1].unflatten(1, (2, 7))[1, :, :5], fewer[1], atol=1e-4)
