"""Inputs that callers may give: both files do the same with them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_detector import SETTINGS, scenes

from ssd.detector import Outputs
from ssd.export.onnx import open_onnx
from ssd.export.torchscript import open_torchscript

Run = Callable[[torch.Tensor], Outputs]

REFUSED = {
    "float32": scenes(1, 50, 60).float() / 255,
    "float32, 0 to 255": scenes(1, 50, 60).float(),
    "bool": scenes(1, 50, 60) > 127,
    "int64": scenes(1, 50, 60).long(),
    "int8": scenes(1, 50, 60).to(torch.int8),
    "one channel": scenes(1, 50, 60)[:, :1],
    "four channels": scenes(1, 50, 60)[:, [0, 1, 2, 0]],
    "no channel": scenes(1, 50, 60)[:, :0],
    "channels last": scenes(1, 50, 60).permute(0, 2, 3, 1).contiguous(),
    "one image that is no batch": scenes(1, 50, 60)[0],
    "five dimensions": scenes(1, 50, 60)[None],
    "no rows": scenes(1, 50, 60)[:, :, :0],
    "no columns": scenes(1, 50, 60)[..., :0],
    "no image of no rows": scenes(1, 50, 60)[:0, :, :0],
}


@pytest.fixture(params=["onnx", "torchscript"])
def run(request: pytest.FixtureRequest, onnx_file: Path, torchscript_file: Path) -> Run:
    if request.param == "onnx":
        return open_onnx(onnx_file)[0]
    return open_torchscript(torchscript_file)[0]


@pytest.mark.parametrize("images", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_batch_of_images_is_an_error(run: Run, images: torch.Tensor) -> None:
    with pytest.raises(Exception, match=r"(?i)images|input|size|dimension"):
        run(images)


def test_no_image_gives_empty_results(run: Run) -> None:
    k = SETTINGS.max_detections
    expected = [
        (torch.float32, (0, k, 4)),
        (torch.float32, (0, k)),
        (torch.int64, (0, k)),
        (torch.int64, (0,)),
    ]
    for height, width in ((50, 60), (64, 64), (1, 1)):
        found = run(scenes(1, height, width)[:0])
        assert [(output.dtype, tuple(output.shape)) for output in found] == expected
