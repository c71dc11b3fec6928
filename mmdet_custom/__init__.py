"""Detection plug-in: what Mask R-CNN, Cascade Mask R-CNN and DINO need beyond mmdet."""
