"""Stage 3: train on the tensor files; writes models/model.pt, reports/train/history.tsv and priors.json.

The next best weights (`train.keep_best`) are models/best/2.pt, 3.pt, ...; models/best/epochs.tsv lists them.

All code that can change the weights is a dep of the stage in dvc.yaml. These deps, the settings and the data
name the folder of the training's checkpoints. Output that changes no weights is in stages/train_log.py.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path

from ruamel.yaml import YAML
from torch import Tensor

from ssd.errors import UserError
from ssd.files import replacing_folder, write_bytes, write_json
from ssd.hardware import Hardware, choose_hardware, choose_kernels
from ssd.loading.tensor_file import TensorFile
from ssd.models.build import build_model
from ssd.models.family import Model, paper_priors
from ssd.models.kmeans_priors import prior_fit
from ssd.models.saved import save_model
from ssd.params import Params
from ssd.processes.launch import launch, num_processes
from ssd.processes.world import World, exit_now, joined_world, launched
from ssd.training.checkpoints import Best, CheckpointFolder, fingerprint
from ssd.training.loop import Trainer
from stages.command import command, resolve_weights, stop, workspace
from stages.fused_best import report_fused
from stages.only_one import only_one
from stages.train_log import TrainLog

MODEL = Path("models/model.pt")
OTHERS = Path("models/best")
PRIORS = Path("reports/train/priors.json")
TRAIN_FILE, VAL_FILE = Path("data/tensors/train"), Path("data/tensors/val")

# Keys of the `train` section that do not change the weights: a training resumes after a change of them.
NOT_IN_FINGERPRINT = {
    "workers",
    "cache",
    "device",
    "devices",
    "restarts",
    "checkpoint_minutes",
    "val_batch_size",
}


@command
def main(params: Params) -> None:
    train = params.train
    if not launched():
        processes = num_processes(train.devices, choose_hardware(train.device, train.precision).device)
        if processes > 1 or train.restarts > 0:
            sys.exit(launch(["-m", "stages.train"], processes, train.restarts, stop))
    with joined_world(train.device, stop) as world, only_one("train") if world.is_main else nullcontext():
        train_model(params, world)
    if world.size > 1:
        exit_now(0)


def train_model(params: Params, world: World) -> None:
    """Train as one process of `world`; rank 0 writes and logs."""
    train_file = TensorFile(TRAIN_FILE, train_on_difficult=params.train.train_on_difficult)
    val_file = TensorFile(VAL_FILE)
    raise_if_nothing_to_learn(train_file)
    hardware = choose_hardware(params.train.device, params.train.precision, local_rank=world.local_rank)
    choose_kernels(hardware.device, params.train.deterministic)
    boxes = train_file.normalised_boxes()
    weights = resolve_weights(params, workspace())
    model = build_model(params.model, train_file.class_names, boxes, params.train.seed, weights)
    trainer = Trainer(model, train_file, val_file, params.train, params.augment, hardware, world)
    if not world.is_main:
        trainer.run(None, stop=stop)
        report_fused(trainer)
        return
    with ExitStack() as stack:
        checkpoints = stack.enter_context(
            CheckpointFolder(checkpoint_folder(params, hardware), params.train.keep_best)
        )
        log = stack.enter_context(TrainLog.opened(params, trainer, checkpoints.folder))
        write_json(PRIORS, describe_priors(model, boxes, params.model.priors))
        result = trainer.run(checkpoints, log, stop)
        assert result is not None, "the main process has a folder"
        criterion = trainer.step.loss_settings
        save_model(MODEL, result.weights, model.config, train_file.class_names, criterion)
        with replacing_folder(OTHERS) as folder:
            write_bytes(folder / "epochs.tsv", epochs_table(checkpoints.best).encode())
            for rank, others in enumerate(result.others, start=2):
                save_model(folder / f"{rank}.pt", others, model.config, train_file.class_names, criterion)
        fused = report_fused(trainer, [result.weights, *result.others])
        log.ended(result, MODEL, PRIORS, fused)


def epochs_table(best: Sequence[Best]) -> str:
    """Epoch and score of each of the best weights, models/model.pt first; tab-separated, with a header."""
    lines = ["rank\tepoch\tscore"]
    for rank, item in enumerate(best, start=1):
        score = "" if item.score is None else f"{item.score:.6g}"
        lines.append(f"{rank}\t{item.epoch}\t{score}")
    return "\n".join(lines) + "\n"


def raise_if_nothing_to_learn(train_file: TensorFile) -> None:
    """Refuse a training that would end with a localisation loss of zero.

    Raises:
        UserError: every object is ignored: it is a crowd, or difficult without train.train_on_difficult.
    """
    if not train_file.ignored.all():
        return
    num_objects, num_crowds = len(train_file.ignored), int(train_file.crowd.sum())
    if num_difficult := num_objects - num_crowds:
        raise UserError(
            f"found false, and {TRAIN_FILE} has no object to learn from: {num_difficult} are difficult, "
            f"{num_crowds} crowds; set it to true, or annotate others",
            key="train.train_on_difficult",
        )
    reason = f"all {num_crowds} objects are crowds" if num_crowds else "there are no objects"
    raise UserError(f"{TRAIN_FILE}: no object to learn from: {reason}; annotate others")


def describe_priors(model: Model, boxes: Tensor, kind: str) -> dict[str, object]:
    """The content of priors.json: how well the priors cover the training boxes, beside the paper's table.

    Args:
        boxes: float32 [N, 4], xyxy, normalised.
        kind: `model.priors`.
    """
    paper, paper_levels = paper_priors(model.config)
    return {
        "kind": kind,
        "paper": asdict(prior_fit(paper, boxes)),
        "model": asdict(prior_fit(model.priors, boxes)),
        "paper_levels": [asdict(level) for level in paper_levels],
        "levels": [asdict(level) for level in model.config.levels],
    }


def checkpoint_folder(params: Params, hardware: Hardware) -> Path:
    """The checkpoint folder of this training, named by a digest of all that decides its result."""
    settings = params.model_dump(include={"model": True, "augment": True, "train": True})
    settings["train"] = {k: v for k, v in settings["train"].items() if k not in NOT_IN_FINGERPRINT}
    settings["train"]["precision"] = str(hardware.dtype)
    weights = Path(resolve_weights(params, workspace()))
    data = [TRAIN_FILE, VAL_FILE, *([weights] if weights.is_file() else [])]
    return workspace() / "checkpoints" / fingerprint(settings, data, code_files())


def code_files() -> dict[str, Path]:
    """The Python files that train's deps in dvc.yaml name, by their place in the repository."""
    root = Path(__file__).parents[1]
    deps = YAML(typ="safe", pure=True).load(root / "dvc.yaml")["stages"]["train"]["deps"]
    code = [root / dep for dep in deps if dep.split("/")[0] in ("ssd", "stages")]
    files = [file for path in code for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return {file.relative_to(root).as_posix(): file for file in sorted(files)}


if __name__ == "__main__":
    main(sys.argv[1:])
