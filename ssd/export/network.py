"""How large a network is: priors, parameters, multiply-accumulate operations."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssd.detector import Detector


def describe_network(detector: Detector) -> dict[str, Any]:
    """Backbone, priors and size of a detector's network, as JSON values.

    Returns:
        family; backbone; num_priors; map_sizes: [rows, columns] of each feature map; num_parameters;
        num_macs: of one image of the input size, convolutions and matrix products alone, as papers
        count them.
    """
    model = detector.model
    image = torch.zeros(1, 3, detector.side, detector.side, device=detector.mean.device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image)
    return {
        "family": model.config.family,
        "backbone": model.config.backbone,
        "num_priors": len(model.priors),
        "map_sizes": [list(size) for size in model.config.map_sizes()],
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_macs": counter.get_total_flops() // 2,
    }
