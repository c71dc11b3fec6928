"""COCO with large-scale jitter for schedules in iterations: one image per GPU, without end."""
_base_ = './coco_lsj_1024.py'
train_dataloader = dict(batch_size=1, sampler=dict(type='InfiniteSampler'))
