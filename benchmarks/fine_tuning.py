"""Fine-tuning a model of the embedded data set on real images, against from scratch in the same time.

The same network, so the same steps of the same CPU time. Only the initial weights and the learning rate
differ; for each start it is the better of two by validation. The model's own training is not counted.

python -m benchmarks --model models/model.pt --bccd BCCD fine_tuning    # github.com/Shenggan/BCCD_Dataset
"""

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

from benchmarks.results import Result, Row, make_result
from ssd.files import sha256
from ssd.hardware import choose_hardware
from ssd.inference.folder_split import pack_folder
from ssd.layouts import SPLITS
from ssd.loading.tensor_file import TensorFile
from ssd.metrics.coco import evaluate_coco
from ssd.models.build import build_model
from ssd.params import Params, load_params
from ssd.training.checkpoints import CheckpointFolder
from ssd.training.loop import Trainer
from stages.detect import detect

CLASSES = ("Platelets", "RBC", "WBC")
EPOCHS = (4,)
SEEDS = (0, 1, 2)
LEARNING_RATES = (0.002, 0.001)
STARTS = ("fine-tuned", "from scratch")


@dataclass(frozen=True)
class Training:
    """A training from one start.

    cpu_seconds: of its steps and validations; val_map50: of the best epoch; test_map50, test_map: COCO's, of
    its weights.
    """

    start: str
    epochs: int
    lr: float
    seed: int
    cpu_seconds: float
    val_map50: float
    test_map50: float
    test_map: float


def run(model: Path, voc: Path) -> Result:
    """Train from both starts, in turns, and measure on the test split."""
    logging.getLogger("ssd").setLevel(logging.ERROR)
    trainings: list[Training] = []
    with tempfile.TemporaryDirectory() as folder:
        files = {split: Path(folder) / f"{split}.safetensors" for split in SPLITS}
        for split, path in files.items():
            pack_folder(voc, path, split, CLASSES)
        loaded = {split: TensorFile(path) for split, path in files.items()}
        for epochs in EPOCHS:
            for seed in SEEDS:
                for lr, start in product(LEARNING_RATES, STARTS):
                    trainings.append(train(start, model, loaded, epochs=epochs, lr=lr, seed=seed))
                    print(trainings[-1], flush=True)
    settings = {
        "model": sha256(model),
        "params": load_params().model_dump(include={"model", "augment", "train"}),
        "images": {split: len(file) for split, file in loaded.items()},
        "trainings": [asdict(training) for training in trainings],
    }
    rows = [compare(best_learning_rates(trainings), epochs) for epochs in EPOCHS]
    return make_result("fine_tuning", settings, {}, rows)


def train(
    start: str, model: Path, files: dict[str, TensorFile], *, epochs: int, lr: float, seed: int
) -> Training:
    """One training by params.yaml but for its length, learning rate and initial weights."""
    params = settings_of(start, model, epochs, lr, seed)
    hardware = choose_hardware(params.train.device, params.train.precision)
    boxes = files["train"].normalised_boxes()
    network = build_model(params.model, list(CLASSES), boxes, seed, params.model.weights)
    trainer = Trainer(network, files["train"], files["val"], params.train, params.augment, hardware)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder, CheckpointFolder(Path(folder), keep_best=1) as checkpoints:
        result = trainer.run(checkpoints)
    assert result is not None and result.best_score is not None, "one process, and val has objects"
    cpu_seconds = time.process_time() - began
    network.load_state_dict(result.weights)
    test = files["test"]
    found = detect(network, {}, test, params.evaluate).detections
    figures = evaluate_coco(found, [test.objects(index) for index in range(len(test))], CLASSES)
    assert figures.map is not None and figures.map50 is not None, "test has objects"
    return Training(start, epochs, lr, seed, cpu_seconds, result.best_score, figures.map50, figures.map)


def settings_of(start: str, model: Path, epochs: int, lr: float, seed: int) -> Params:
    """Those of params.yaml with what differs."""
    params = load_params()
    weights = str(model) if start == "fine-tuned" else "none"
    # Of 13 steps an epoch, the default's warm-up would be half of a training.
    # Workers would load images in processes whose CPU time is not counted.
    changes = {"epochs": epochs, "lr": lr, "seed": seed, "warmup_steps": 20, "workers": 0}
    return params.model_copy(
        update={
            "model": params.model.model_copy(update={"weights": weights}),
            "train": params.train.model_copy(update=changes),
        }
    )


def best_learning_rates(trainings: Sequence[Training]) -> list[Training]:
    """Those with the learning rate of the best mean validation over seeds, for each start and length."""

    def validation(training: Training, lr: float) -> float:
        same = [t for t in trainings if (t.start, t.epochs, t.lr) == (training.start, training.epochs, lr)]
        return fmean(t.val_map50 for t in same)

    return [t for t in trainings if t.lr == max(LEARNING_RATES, key=lambda lr: validation(t, lr))]


def compare(trainings: Sequence[Training], epochs: int) -> Row:
    """A row of means over the seeds, with smallest and largest."""
    figures = {}
    notes = []
    for start in STARTS:
        chosen = [t for t in trainings if (t.start, t.epochs) == (start, epochs)]
        values = [t.test_map50 for t in chosen]
        figures[start] = fmean(values)
        seconds = fmean(t.cpu_seconds for t in chosen)
        spread = f"{start} {min(values):.3f} to {max(values):.3f}"
        notes.append(f"{spread}, learning rate {chosen[0].lr:g}, {seconds:.0f} CPU seconds")
    return Row(
        what=f"fine-tuning on BCCD for {epochs} epochs, against from scratch: mAP@0.5",
        unit="mAP@0.5",
        ours=figures["fine-tuned"],
        peer=figures["from scratch"],
        notes="; ".join([f"{len(SEEDS)} seeds", *notes]),
    )
