"""The smallest BEVFormer v2 that has every part, and batches for it."""
from __future__ import annotations

import copy
import logging

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from mmdet3d_custom.models.bevformer_v2 import surround_matrices

CAMERAS, HEIGHT, WIDTH = 6, 64, 160
WEAK = dict(
    type='BEVFormerV2', frames=(0,),
    img_backbone=dict(type='FlashInternImage', arch='pico', out_indices=(1, 2, 3)),
    img_neck=dict(type='mmdet.FPN', in_channels=[64, 128, 256], out_channels=64, num_outs=4,
                  add_extra_convs='on_output', relu_before_extra_convs=True),
    pts_bbox_head=dict(
        type='BEVFormerHead', num_query=20, num_groups=3, bev_h=16, bev_w=16, embed_dims=64,
        transformer=dict(
            type='PerceptionTransformerV2',
            encoder=dict(type='BEVFormerEncoder', num_layers=2, feedforward_channels=64,
                         num_heads=4),
            decoder=dict(type='BEVFormerDecoder', num_layers=2, feedforward_channels=64,
                         num_heads=4))))


def pico_config(**changes: object) -> dict:
    """Config of the pico model without a perspective head."""
    return copy.deepcopy(dict(WEAK, **changes))


def pico_model(**changes: object) -> torch.nn.Module:
    """The pico model with its initial weights, in eval mode.

    Offsets and attention weights of deformable layers depend on the query, unlike initially.
    """
    model = MODELS.build(pico_config(**changes))
    logging.disable(logging.INFO)  # mmengine tells of each parameter
    model.init_weights()
    logging.disable(logging.NOTSET)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if 'sampling_offsets.weight' in name or 'attention_weights.weight' in name:
                parameter.normal_(std=0.05)
    return model.eval()


def make_boxes(count: int, seed: int = 0) -> LiDARInstance3DBoxes:
    """Boxes within the range."""
    rng = np.random.default_rng(seed)
    table = np.concatenate([
        rng.uniform(-40, 40, (count, 2)), rng.uniform(-3, 0, (count, 1)),
        rng.uniform(0.5, 5, (count, 3)), rng.uniform(-3, 3, (count, 1)),
        rng.normal(size=(count, 2))], 1).astype(np.float32)
    return LiDARInstance3DBoxes(torch.from_numpy(table).reshape(-1, 9), box_dim=9)


def make_batch(frames: tuple[int, ...] = (0,), flips: tuple[bool, ...] = (False, False),
               objects: int = 3, height: int = HEIGHT, width: int = WIDTH,
               ) -> tuple[dict, list[Det3DDataSample]]:
    """Pictures (B, T*6, 3, H, W) and samples, of a batch as long as ``flips``."""
    torch.manual_seed(5)
    rng = np.random.default_rng(5)
    imgs = torch.randn(len(flips), len(frames) * CAMERAS, 3, height, width)
    samples = []
    for index, flip in enumerate(flips):
        lidar2img = surround_matrices(CAMERAS, height, width).double().numpy()
        lidar2img = np.stack([lidar2img] * len(frames))
        lidar2img[..., 3] += rng.uniform(-3, 3, lidar2img.shape[:-1])  # cameras differ
        sample = Det3DDataSample(metainfo=dict(
            lidar2img=lidar2img, frames=frames, frame_valid=np.ones(len(frames), bool),
            frame_tokens=[f'{index}:{frame}' for frame in frames], flip=flip, bda=np.eye(3),
            img_shape=(height, width), pad_shape=(height, width),
            batch_input_shape=(height, width), sample_idx=index))
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=make_boxes(objects, index),
            labels_3d=torch.from_numpy(rng.integers(0, 10, objects)))
        samples.append(sample)
    return dict(imgs=imgs), samples
