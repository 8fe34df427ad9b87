"""Every recipe is a whole params file; its network has the priors of its source, trains and exports."""

from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml

from ssd.detector import Detector
from ssd.export.onnx import open_onnx, to_onnx
from ssd.export.torchscript import to_torchscript
from ssd.files import write_bytes
from ssd.hardware import choose_hardware
from ssd.loading.tensor_file import TensorFile
from ssd.models.build import build_model
from ssd.models.ssd import SSD
from ssd.params import Params, load_params
from ssd.postprocess import PostProcessSettings
from ssd.training.loop import Trainer

RECIPES = Path(__file__).parents[1] / "recipes"
NUM_PRIORS = {
    "bccd-ssd300-resnet18": 8732,
    "coco-ssd300-resnet50": 8732,
    "coco-ssd300-vgg16": 8732,
    "coco-ssdlite320-mobilenetv3": 3234,
    "penn-fudan-ssd300-resnet34": 7760,
    "voc07-ssd300-resnet50": 8732,
    "voc0712-ssd300-resnet34": 8732,
    "voc0712-ssd300-resnet50": 8732,
    "voc0712-ssd300-vgg16": 8732,
    "voc0712-ssd512-resnet50": 24564,
}

# One of each kind of network; the others differ from them in depth and size alone.
IN_ONNX = {
    "bccd-ssd300-resnet18",
    "coco-ssd300-vgg16",
    "coco-ssdlite320-mobilenetv3",
    "penn-fudan-ssd300-resnet34",
}


def test_every_recipe_is_listed_here() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(NUM_PRIORS)


@pytest.mark.parametrize("name", NUM_PRIORS)
def test_its_header_says_what_where_from_and_how_well(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text()
    header = text.split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("Source:", "Published:", "Measured here"):
        assert word in header
    assert list(yaml.safe_load(text)) == list(Params.model_fields)


def build(name: str, num_classes: int) -> tuple[Params, SSD]:
    params = load_params(RECIPES / f"{name}.yaml")
    return params, build_model(params.model, num_classes, torch.zeros(0, 4), 0, "none")


@pytest.mark.slow
@pytest.mark.parametrize("name", NUM_PRIORS)
def test_it_trains_and_exports(name: str, shapes_file: TensorFile, tmp_path: Path) -> None:
    """Two steps by its own optimiser, loss and augmentation; then files that agree with it."""
    params, model = build(name, len(shapes_file.class_names))
    assert len(model.priors) == NUM_PRIORS[name]
    small = {"batch_size": 2, "workers": 0, "device": "cpu", "warmup_steps": 0}
    trainer = Trainer(
        model,
        shapes_file,
        shapes_file,
        params.train.model_copy(update=small),
        params.augment,
        choose_hardware("cpu", "auto"),
    )
    batches = list(islice(trainer.loader, 2))
    losses = [trainer.step(batch, 0, index, 1e-4).tolist() for index, batch in enumerate(batches)]
    assert all(0 < total < 1e4 and skipped == 0 for total, _, _, skipped in losses)
    learning = [p.grad is not None and p.grad.isfinite().all() for p in model.parameters()]
    assert all(learning)
    detector = Detector(model.eval(), PostProcessSettings(1e-3, max_detections=20))
    assert_files_agree(detector, shapes_file, tmp_path, onnx=name in IN_ONNX)


def assert_files_agree(detector: Detector, file: TensorFile, folder: Path, *, onnx: bool) -> None:
    """The exported files find what the detector finds."""
    images = file.image(0)[None]
    with torch.inference_mode():
        expected = detector(images)
    assert expected[3].item() > 0
    script = folder / "ssd.torchscript.pt"
    write_bytes(script, to_torchscript(detector, file.class_names))
    runs = [torch.jit.load(script)]
    if onnx:
        write_bytes(folder / "ssd.onnx", to_onnx(detector, file.class_names, 18))
        runs.append(open_onnx(folder / "ssd.onnx")[0])
    for run in runs:
        found = run(images)
        torch.testing.assert_close(found[1], expected[1], atol=1e-4, rtol=0)
        assert found[3].tolist() == expected[3].tolist()
