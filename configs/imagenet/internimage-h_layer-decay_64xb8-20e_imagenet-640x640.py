"""Classifier, InternImage-H, fine-tuned for 20 epochs with layer-wise decay of the rate.

A published recipe; the published accuracy was reached without the decay.
"""
_base_ = './internimage-h_64xb8-20e_imagenet-640x640.py'
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.1))
