"""The colours that networks are fed: ImageNet's mean and deviation."""

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""ImageNet's RGB mean and deviation on the 0..255 scale, what torchvision's weights were trained with."""
