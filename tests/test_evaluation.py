"""Running over a split: all of it, once, in its order, however many processes share it.

As a script, this is one of the processes.
"""

import pickle
import sys
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from torch import nn

from ssd.evaluation import SplitResult, run_split
from ssd.hardware import choose_hardware
from ssd.loading.batch_augment import normalise
from ssd.loading.batches import EpochBatches, SampleKey
from ssd.loading.dataset import DetectionDataset, collate
from ssd.loading.loader import make_loader
from ssd.loading.tensor_file import TensorFile
from ssd.loss import MultiBoxLoss
from ssd.models.config import paper_config
from ssd.models.ssd import SSD
from ssd.postprocess import PostProcessor, PostProcessSettings
from ssd.processes.world import World, exit_now, joined_world
from ssd.tensor_writer import AnnotatedImage, write_tensor_file

SIDE = 64
ALONE = World()
SETTINGS = PostProcessSettings(score_threshold=0.3, max_detections=20)
SPLIT_SIZES = [7, 1, 0]
"""Odd, smaller than the number of processes, and empty."""


def build_model() -> SSD:
    """A network of random weights that finds several things in every image."""
    torch.manual_seed(0)
    model = SSD(paper_config("resnet18", SIDE, 9, 0.1, 0.2, 1.05)).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of the one batch below
    with torch.no_grad():
        model(torch.randn(8, 3, SIDE, SIDE))
    for head in model.heads.conf:
        nn.init.normal_(head.weight, std=0.05)
    return model


def run(
    file: TensorFile,
    model: SSD | None = None,
    batch_size: int = 4,
    workers: int = 0,
    world: World = ALONE,
) -> SplitResult:
    model = model or build_model()
    batches = EpochBatches(
        range(len(file)), batch_size, SIDE, seed=None, rank=world.rank, world_size=world.size
    )
    return run_split(
        model,
        MultiBoxLoss(model.priors),
        PostProcessor(model.priors, SETTINGS),
        make_loader(DetectionDataset(file, SIDE), batches, workers),
        choose_hardware("cpu", "fp32"),
        world=world,
    )


def write_split(path: Path, source: TensorFile, num_images: int) -> TensorFile:
    """The last images of `source`."""
    samples = []
    for row in range(len(source) - num_images, len(source)):
        objects = source.objects(row)
        height, width = source.sizes[row].tolist()
        samples.append(
            AnnotatedImage(
                id=source.image_ids[row],
                encoded=source.encoded(row).numpy().tobytes(),
                size=(height, width),
                boxes=objects.boxes.tolist(),
                labels=objects.labels.tolist(),
                difficult=objects.ignored.tolist(),
                crowd=[False] * len(objects.labels),
            )
        )
    write_tensor_file(path, samples, source.class_names)
    return TensorFile(path)


def assert_same(one: SplitResult, other: SplitResult) -> None:
    """But for float rounding, which depends on how many images are computed together."""
    assert len(one.detections) == len(other.detections)
    for a, b in zip(one.detections, other.detections, strict=True):
        assert a.labels.tolist() == b.labels.tolist()
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a.boxes, b.boxes, rtol=1e-4, atol=1e-2)
    losses = [(result.loss, result.loc_loss, result.conf_loss) for result in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_split_in_batches_is_the_split_as_one_batch(shapes_file: TensorFile) -> None:
    model = build_model().eval()
    dataset = DetectionDataset(shapes_file, SIDE)
    batch = collate([dataset[SampleKey(0, row, SIDE)] for row in range(len(shapes_file))])
    with torch.no_grad():
        loc, logits = model(normalise(batch.images))
    criterion = MultiBoxLoss(model.priors)
    losses = criterion(loc, logits, criterion.match(batch.targets))
    boxes, scores, labels, num_detections = PostProcessor(model.priors, SETTINGS)(loc, logits)
    assert num_detections.min() > 0

    result = run(shapes_file, model, batch_size=5, workers=2)
    expected = [losses.total.item(), losses.loc.item(), losses.conf.item()]
    assert [result.loss, result.loc_loss, result.conf_loss] == pytest.approx(expected, rel=1e-5)
    assert len(result.detections) == len(shapes_file)
    for row, found in enumerate(result.detections):
        height, width = shapes_file.sizes[row].tolist()
        num = int(num_detections[row])
        assert found.labels.tolist() == labels[row, :num].tolist()
        torch.testing.assert_close(found.scores, scores[row, :num], rtol=1e-4, atol=1e-5)
        pixels = boxes[row, :num] * torch.tensor([width, height, width, height])
        torch.testing.assert_close(found.boxes, pixels, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool, shapes_file: TensorFile) -> None:
    model = build_model().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(shapes_file, model)
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_two_processes_find_what_one_finds(shapes_file: TensorFile, tmp_path: Path) -> None:
    files = [write_split(tmp_path / f"{size}.safetensors", shapes_file, size) for size in SPLIT_SIZES]
    expected = [run(file) for file in files]
    assert [len(result.detections) for result in expected] == SPLIT_SIZES
    assert expected[0].detections[0].scores.tolist() != expected[0].detections[1].scores.tolist()

    outputs = run_ranks(__file__, tmp_path)
    assert [output.code for output in outputs] == [0, 0], outputs
    for rank in range(2):
        found = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        for result, other in zip(found, expected, strict=True):
            assert_same(result, other)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    with joined_world("cpu") as this:
        results = [run(TensorFile(folder / f"{size}.safetensors"), world=this) for size in SPLIT_SIZES]
        (folder / f"{this.rank}.pickle").write_bytes(pickle.dumps(results))
    exit_now(0)
