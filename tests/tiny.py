"""Tiny data sets and configs of each task, in the real formats, for the tests of the tools."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

RUNTIME = '''
default_scope = '{scope}'
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
default_hooks = dict(
    timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'))
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=4)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
'''

CLASSIFIER = RUNTIME.format(scope='mmpretrain') + '''
custom_imports = dict(imports=['mmcls_custom', 'mmcls_custom.datasets'])
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
model = dict(
    type='ImageClassifier', data_preprocessor=dict(num_classes=2, mean=[127.0] * 3, std=[60.0] * 3),
    backbone=dict(type='MobileNetV2', widen_factor=0.1, out_indices=(7, )),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=1280, topk=(1, ),
              loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=64), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='{root}', data_prefix='train', with_label=True,
                 metainfo=dict(classes=['dark', 'light']), pipeline=pipeline))
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='{root}', data_prefix='val', with_label=True,
                 serialize_data=False,
                 metainfo=dict(classes=['dark', 'light']), pipeline=pipeline))
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
'''

DETECTOR = RUNTIME.format(scope='mmdet') + '''
custom_imports = dict(imports=['mmdet_custom'])
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(_delete_=True, type='MobileNetV2', widen_factor=0.1, out_indices=(1, 2, 4, 7)),
    neck=dict(in_channels=[8, 8, 16, 1280], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16), mask_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=16, num_classes=2),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=2)),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=5)))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='CocoDataset', serialize_data=False, data_root='{root}',
                 ann_file='annotations.json',
                 data_prefix=dict(img='images/'), metainfo=dict(classes=('box', 'disk')),
                 pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CocoDataset', serialize_data=False, data_root='{root}',
                 ann_file='annotations.json',
                 data_prefix=dict(img='images/'), metainfo=dict(classes=('box', 'disk')),
                 test_mode=True, pipeline=test_pipeline))
val_evaluator = dict(type='CocoMetric', ann_file='{root}/annotations.json',
                     metric=['bbox', 'segm'])
test_dataloader = val_dataloader
test_evaluator = val_evaluator
'''

SEGMENTOR = RUNTIME.format(scope='mmseg') + '''
custom_imports = dict(imports=['mmseg_custom'])
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.0] * 3, std=[60.0] * 3,
                           pad_val=0, seg_pad_val=255, size=(32, 32)),
    backbone=dict(type='MobileNetV2', widen_factor=0.25, out_indices=(0, 1),
                  norm_cfg=dict(type='BN')),
    decode_head=dict(type='FCNHead', in_channels=8, in_index=1, channels=8, num_convs=1,
                     num_classes=2, norm_cfg=dict(type='BN'), concat_input=False,
                     loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0)),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', scale=(32, 32), keep_ratio=False), dict(type='PackSegInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32), keep_ratio=False),
    dict(type='LoadAnnotations', reduce_zero_label=True), dict(type='PackSegInputs')]
dataset = dict(
    type='BaseSegDataset', serialize_data=False, data_root='{root}', reduce_zero_label=True,
    img_suffix='.jpg',
    metainfo=dict(classes=('ground', 'box'), palette=[[0, 0, 0], [200, 0, 0]]),
    data_prefix=dict(img_path='images', seg_map_path='annotations'))
train_dataloader = dict(batch_size=2, num_workers=0,
                        sampler=dict(type='InfiniteSampler', shuffle=True),
                        dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(batch_size=1, num_workers=0,
                      sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(pipeline=test_pipeline, **dataset))
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_dataloader = val_dataloader
test_evaluator = val_evaluator
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=(32, 32), keep_ratio=False)],
        [dict(type='RandomFlip', prob=0.0, direction='horizontal'),
         dict(type='RandomFlip', prob=1.0, direction='horizontal')],
        [dict(type='LoadAnnotations', reduce_zero_label=True)],
        [dict(type='PackSegInputs')]])]
'''


def _image(rng: np.random.Generator, level: int = 128) -> np.ndarray:
    noise = rng.integers(-30, 30, (48, 64, 3))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


def _write_config(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text.replace('{root}', folder.as_posix()))
    return path


def make_classifier(folder: Path) -> Path:
    """Class folders ``train`` and ``val`` of 'dark' and 'light' images; returns the config."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name, level in (('dark', 60), ('light', 200)):
            (folder / split / name).mkdir(parents=True)
            for i in range(3):
                cv2.imwrite(str(folder / split / name / f'{i}.jpg'), _image(rng, level))
    return _write_config(folder, 'classifier.py', CLASSIFIER)


def make_detector(folder: Path) -> Path:
    """Six images with one or two objects in COCO's format; returns the config."""
    rng = np.random.default_rng(1)
    (folder / 'images').mkdir(parents=True)
    images, annotations = [], []
    for i in range(1, 7):
        picture = _image(rng)
        for _ in range(1 + i % 2):
            x, y, w, h = (int(v) for v in (rng.integers(2, 30), rng.integers(2, 20), 20, 16))
            category = 1 + int(rng.integers(2))
            picture[y:y + h, x:x + w] = (250, 20, 20) if category == 1 else (20, 250, 20)
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(dict(id=len(annotations) + 1, image_id=i, category_id=category,
                                    bbox=[x, y, w, h], area=w * h, iscrowd=0,
                                    segmentation=[polygon]))
        cv2.imwrite(str(folder / 'images' / f'{i:03d}.jpg'), picture)
        images.append(dict(id=i, file_name=f'{i:03d}.jpg', width=64, height=48))
    (folder / 'annotations.json').write_text(json.dumps(dict(
        images=images, annotations=annotations,
        categories=[dict(id=1, name='box'), dict(id=2, name='disk')])))
    return _write_config(folder, 'detector.py', DETECTOR)


def make_segmentor(folder: Path) -> Path:
    """Four images with label maps 0 (ignored), 1 and 2, as ADE20K has them."""
    rng = np.random.default_rng(2)
    (folder / 'images').mkdir(parents=True)
    (folder / 'annotations').mkdir()
    for i in range(4):
        picture, labels = _image(rng), np.ones((48, 64), np.uint8)
        picture[10:30, 10 + i:40] = (20, 20, 240)
        labels[10:30, 10 + i:40] = 2
        labels[:2] = 0
        cv2.imwrite(str(folder / 'images' / f'{i}.jpg'), picture)
        cv2.imwrite(str(folder / 'annotations' / f'{i}.png'), labels)
    return _write_config(folder, 'segmentor.py', SEGMENTOR)
