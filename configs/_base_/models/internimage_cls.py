"""Classifier: InternImage-T (DCNv3), 1x1 conv neck of 1.5 times the width, linear head."""
model = dict(
    type='ImageClassifier',
    backbone=dict(type='InternImage', arch='tiny', layer_scale=None, out_indices=(3,),
                  drop_path_rate=0.1),
    neck=dict(type='InternImageConvNeck', in_channels=512),
    head=dict(type='LinearClsHead', in_channels=768, num_classes=1000,
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
