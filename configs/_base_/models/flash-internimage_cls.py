"""Classifier: FlashInternImage-T (DCNv4), 1x1 conv neck of 1.5 times the width, linear head."""
_base_ = './internimage_cls.py'
model = dict(backbone=dict(type='FlashInternImage'))
