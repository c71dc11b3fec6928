"""Deformable operators DCNv3, DCNv4 and multi-scale deformable attention for PyTorch.

Functions take channels-last tensors and run a compiled kernel; modules hold the learned layers
around them. If the compiled library is missing, the first operator that is called raises
``ImportError`` with the command that builds it. ``python -m ops_dcn.selftest`` checks an
installation. ``ops_dcn.reference`` holds the same functions in plain PyTorch, ``OPERATORS`` is the
table of the operators, and ``multiply_adds`` gives their costs to a counter of operations.
"""
from ops_dcn import _autograd, operators, reference
from ops_dcn.ablation import DCNv3Unshared
from ops_dcn.conv2d import DCNv4Conv2d
from ops_dcn.functional import dcnv3, dcnv4, flash_deform_attn, ms_deform_attn
from ops_dcn.modules import DCNv3, DCNv4, FlashDeformAttn
from ops_dcn.operators import OPERATORS, multiply_adds

__all__ = ['DCNv3', 'DCNv3Unshared', 'DCNv4', 'DCNv4Conv2d', 'FlashDeformAttn', 'OPERATORS',
           'dcnv3', 'dcnv4', 'flash_deform_attn', 'ms_deform_attn', 'multiply_adds', 'operators',
           'reference']

_autograd.register()
