"""Classifier, InternImage-L, fine-tuned for 20 epochs with layer-wise decay of the rate.

A published recipe; the published accuracy was reached without the decay.
"""
_base_ = './internimage-l_8xb64-20e_imagenet-384x384.py'
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.1))
