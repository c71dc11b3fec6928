"""Segmentation plug-in: what UperNet and Mask2Former need beyond mmseg."""
