"""Lets ``mmseg::`` config bases resolve with the maintained fork of mmseg.

mmengine looks such a base up by the distribution's name, which the fork changed; the import name,
which mmengine accepts as well, is the same for both.
"""
from __future__ import annotations

from mmengine.config.utils import MODULE2PACKAGE

MODULE2PACKAGE['mmseg'] = 'mmseg'
