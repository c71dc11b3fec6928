"""Test-time augmentation of detectors tested at (2000, 1000): five scales, each also mirrored.

``tools/test.py --tta`` runs it. Soft-NMS merges the detections of all views, class by class. The
published results with augmentation name neither scales nor thresholds: these are a choice.
"""
tta_model = dict(
    type='DetTTAModel',
    tta_cfg=dict(nms=dict(type='soft_nms', iou_threshold=0.6, min_score=1e-3), max_per_img=300))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=(2000, side), keep_ratio=True)
         for side in (600, 800, 1000, 1200, 1400)],
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations', with_bbox=True)],
        [dict(type='PackDetInputs',
              meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
                         'flip_direction'))],
    ]),
]
