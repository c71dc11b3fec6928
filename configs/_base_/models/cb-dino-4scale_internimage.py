"""DINO, four feature levels, on two InternImage-H of which the first feeds the second (CBNet).

In training the losses of the assisting network's maps count half; only the lead's maps detect.
"""
_base_ = './dino-4scale_internimage.py'
model = dict(
    type='CompositeDINO',
    aux_weight=0.5,
    backbone=dict(_delete_=True, type='CompositeInternImage', arch='huge', drop_path_rate=0.5,
                  out_indices=(1, 2, 3), with_cp=True),
    neck=dict(in_channels=[640, 1280, 2560]),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=1000)))
