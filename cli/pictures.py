"""Pictures for a command that was given none."""

import numpy as np
import torch
from torch import Tensor

from ssd.source.shapes import draw_scene

NUM_SCENES = 8
SIDE = 256  # pixels


def drawn_pictures() -> list[Tensor]:
    """Scenes of the embedded data set, uint8 RGB [3, H, W]: for what has to hold of any picture."""
    scenes = [draw_scene(np.random.default_rng([index]), SIDE)[0] for index in range(NUM_SCENES)]
    return [torch.from_numpy(np.array(scene)).permute(2, 0, 1).contiguous() for scene in scenes]
