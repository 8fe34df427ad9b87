"""Stage 3: train on the tensor files; writes models/model.pt and reports/train."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path

from ssd.files import write_bytes
from ssd.hardware import Hardware, choose_hardware, choose_kernels
from ssd.loading.dataset import DetectionDataset
from ssd.loading.tensor_file import TensorFile
from ssd.models.build import build_model
from ssd.params import Params
from ssd.plots.figures import save_figure
from ssd.processes.launch import launch, num_processes
from ssd.processes.world import World, joined, launched, leave
from ssd.tracking import Run, flatten
from ssd.training.checkpoints import CheckpointFolder, fingerprint
from ssd.training.loop import Trainer, TrainResult
from ssd.training.progress import Epoch
from ssd.unused_params import warn_of_unused_augmentation
from stages.command import command, resolve_weights, stop, workspace
from stages.run import stage_run
from stages.train_report import (
    AUGMENTED,
    augmented_figure,
    line_of,
    log_data,
    log_epoch,
    report_priors,
    write_history,
    write_result,
)

RUN_FILE = "mlflow_run"

# What does not decide the weights that come out: a training goes on when it changes.
INDIFFERENT = {"workers", "cache", "device", "devices", "restarts", "keep_best", "checkpoint_minutes"}


@command
def main(params: Params) -> None:
    train = params.train
    if not launched():
        processes = num_processes(train.devices, choose_hardware(train.device, train.precision).device)
        if processes > 1 or train.restarts > 0:
            sys.exit(launch(["-m", "stages.train"], processes, train.restarts))
    with joined(train.device) as world:
        train_model(params, world)
    if world.size > 1:
        leave(0)


def train_model(params: Params, world: World) -> None:
    """Train as one process of `world`; the main one writes and logs."""
    train_file, val_file = (TensorFile(f"data/tensors/{split}.safetensors") for split in ("train", "val"))
    class_names = train_file.class_names
    hardware = choose_hardware(params.train.device, params.train.precision, local_rank=world.local_rank)
    choose_kernels(hardware.device, params.train.deterministic)
    weights = resolve_weights(params.model.weights, workspace())
    boxes, seed = train_file.normalised_boxes(), params.train.seed
    trainer = Trainer(
        build_model(params.model, len(class_names), boxes, seed, weights),
        train_file, val_file, params.train, params.augment, hardware, world,
    )  # fmt: skip
    if not world.is_main:
        trainer.run(None, stop=stop)
        return
    with CheckpointFolder(checkpoints(params, hardware), params.train.keep_best) as folder:
        run_file = folder.folder / RUN_FILE
        resume = run_file.read_text() if run_file.is_file() else None
        with train_run(params, resume) as run:
            if run.id:
                write_bytes(run_file, run.id.encode())
            if not run.resumed:
                run.params(flatten(params.model_dump(exclude={"tracking"})))
            log_data(run, train_file, val_file)
            warn_of_unused_augmentation(params.augment)
            pictures = DetectionDataset(train_file, params.model.input_size, params.augment, seed)
            figure = augmented_figure(pictures, params.augment, class_names)
            save_figure(figure, AUGMENTED)
            report_priors(trainer.step.model, boxes, params.model.priors == "kmeans", run)
            result = run_training(trainer, folder, run)
            write_result(result, trainer.step.model.config, class_names, run)


def run_training(trainer: Trainer, folder: CheckpointFolder, run: Run) -> TrainResult:
    """Train to the end, from where an earlier process stopped; report each epoch."""
    size, hardware = trainer.world.size, trainer.hardware
    where = f"{hardware.device}" if size == 1 else f"{size} processes, {hardware.device.type}"
    print(f"training on {where}, {hardware.dtype}, {len(trainer.train_file)} images", flush=True)
    print(f"checkpoints in {folder.folder}", flush=True)

    def on_start(history: list[Epoch]) -> None:
        print(f"going on after epoch {len(history)}", flush=True)
        write_history(history)
        for epoch in history if not run.resumed else []:
            log_epoch(epoch, run)

    def on_epoch(epoch: Epoch) -> None:
        print(line_of(epoch), flush=True)
        write_history(trainer.progress.history)
        log_epoch(epoch, run)

    try:
        result = trainer.run(
            folder,
            on_resume=on_start,
            on_epoch=on_epoch,
            on_step=lambda step, loss, lr: run.metrics({"step/loss": loss, "step/lr": lr}, step=step),
            stop=stop,
        )
    except KeyboardInterrupt:
        progress = trainer.progress
        if progress.epoch or progress.batch:
            where = f"epoch {progress.epoch + 1}, step {progress.batch}"
            print(f"stopped at {where}; the next `dvc repro` goes on from there", file=sys.stderr)
        raise
    assert result is not None, "the main process has a folder"
    return result


def checkpoints(params: Params, hardware: Hardware) -> Path:
    """The checkpoint folder of this training, by all that decides its result."""
    settings = params.model_dump(include={"model", "augment", "train"})
    settings["train"] = {key: value for key, value in settings["train"].items() if key not in INDIFFERENT}
    settings["train"]["precision"] = str(hardware.dtype)
    files = [Path(f"data/tensors/{split}.safetensors") for split in ("train", "val")]
    weights = resolve_weights(params.model.weights, workspace())
    files += [Path(weights)] if Path(weights).is_file() else []
    code = Path(__file__).parents[1] / "ssd"
    return workspace() / "checkpoints" / fingerprint(settings, [*files, Path(__file__)], code)


def train_run(params: Params, resume: str | None) -> AbstractContextManager[Run]:
    """The MLflow run of this training."""
    name = f"{params.data.source} {params.model.backbone}-{params.model.input_size} lr={params.train.lr:g}"
    sections = {"model", "augment", "train"}
    return stage_run(params, "train", sections=sections, name=name, resume=resume)


if __name__ == "__main__":
    main()
