"""Classifier ConvNeXt-B for fine-tuning: head that starts near zero, no mixing of images."""
_base_ = 'mmpretrain::_base_/models/convnext/convnext-base.py'
model = dict(
    # The published head is drawn with 0.02 and multiplied by 0.001.
    head=dict(init_cfg=dict(_delete_=True, type='TruncNormal', layer='Linear', std=2e-5)),
    train_cfg=dict(_delete_=True))
