"""ImageNet-22K (21,841 class folders) at 224; the published pre-training evaluates nothing."""
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'
data_preprocessor = dict(num_classes=21841)
train_dataloader = dict(
    dataset=dict(_delete_=True, type='CustomDataset', data_root='data/imagenet22k',
                 pipeline=_base_.train_pipeline))
val_dataloader = None
val_evaluator = None
test_dataloader = None
test_evaluator = None
