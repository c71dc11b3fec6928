"""ImageNet at 640 for fine-tuning InternImage."""
_base_ = './imagenet_internimage_384.py'
train_pipeline = _base_.train_pipeline
train_pipeline[1]['scale'] = 640
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = test_pipeline[2]['crop_size'] = 640
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
