"""Generator of the embedded mini data sets: COCO, ImageNet and ADE20K in their real formats.

``classes`` names the classes, ``sources`` holds the photographs and handwritten digits,
``silhouettes`` and ``scenes`` draw, ``coco``, ``imagenet`` and ``ade`` write one format each,
``store`` keeps a set folder whole: complete and verified, or absent.
"""
