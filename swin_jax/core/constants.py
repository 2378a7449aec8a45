"""Mean and deviation of pixels in 0..1, one number per channel,
that published models were trained with; the label of pixels that have none.
"""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

IGNORED = 255  # the label of a pixel that belongs to no class, neither in losses nor in metrics
