"""Detection runtime of schedules in iterations."""
_base_ = './det.py'
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2000, max_keep_ckpts=3))
log_processor = dict(by_epoch=False)
