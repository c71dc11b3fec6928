"""A small network with deformable layers, for the tools that look at sampling."""
from __future__ import annotations

from mmcls_custom.backbones import InternImage
from tests.systems import randomise

LAST = ['levels.0.blocks.0.dcn', 'levels.1.blocks.0.dcn', 'levels.2.blocks.1.dcn',
        'levels.3.blocks.0.dcn']


def backbone(**options):
    return randomise(InternImage(channels=16, depths=(1, 1, 2, 1), groups=(2, 2, 4, 4),
                                 **options)).eval()
