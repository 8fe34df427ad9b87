"""Pictures for a command that was given none."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssd.source.shapes import draw_scene

NUM_SCENES = 8
SIDE = 256  # pixels


def drawn_pictures() -> list[Tensor]:
    """Scenes of the embedded data set, uint8 RGB [3, H, W]: for what has to hold of any picture."""
    return [torch.from_numpy(np.array(scene)).permute(2, 0, 1).contiguous() for scene in _scenes()]


def drawn_files() -> list[bytes]:
    """The same as JPEG files."""
    files = [io.BytesIO() for _ in range(NUM_SCENES)]
    for scene, file in zip(_scenes(), files, strict=True):
        scene.save(file, "JPEG", quality=92)
    return [file.getvalue() for file in files]


def _scenes() -> list[Image.Image]:
    return [draw_scene(np.random.default_rng([index]), SIDE)[0] for index in range(NUM_SCENES)]
