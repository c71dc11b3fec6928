"""Detection runtime with an average of the weights, which is evaluated and kept.

Running statistics of SyncBN are averaged as well, as in the published trainings.
"""
_base_ = './det.py'
custom_hooks = [
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=1e-4, gamma=2000,
         update_buffers=True, priority=49)
]
