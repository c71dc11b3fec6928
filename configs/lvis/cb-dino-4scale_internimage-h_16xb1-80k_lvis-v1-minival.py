"""As the config without ``minival`` in its name, tested on 5,000 pictures of val.

Published: box AP 65.8 on minival (InternImage repository, LVIS table).
"""
_base_ = './cb-dino-4scale_internimage-h_16xb1-80k_lvis-v1.py'
ann_file = 'annotations/lvis_v1_minival.json'
val_dataloader = dict(dataset=dict(ann_file=ann_file))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/lvis_v1/' + ann_file)
test_evaluator = val_evaluator
