"""As the config of VOC 2007, tested on the test pictures of VOC 2012.

Published: AP 97.2 (InternImage repository, VOC table), as the evaluation server measured it: the
annotations of these pictures are not public, so a test needs those in ``VOC2012test/Annotations``.
"""
_base_ = './cb-dino-4scale_internimage-h_16xb1-20k_voc07.py'
test_dataloader = dict(dataset=dict(
    ann_file='VOC2012test/ImageSets/Main/test.txt', data_prefix=dict(sub_data_root='VOC2012test/')))
test_evaluator = dict(eval_mode='area')
