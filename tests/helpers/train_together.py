"""Small trainings in several processes, one after the other, for tests.

    python train_together.py NUM_PROCESSES RESTARTS DATA FOLDER...

Params are FOLDER.yaml. Leaves the history, a digest and the scores of the fused models in FOLDER.json, the
weights in FOLDER.pt, and while it runs the process ids in FOLDER/pid0, ...
"""

import hashlib
import json
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch

from ssd.interrupt import StopSignal
from ssd.processes.launch import launch
from ssd.processes.world import World, exit_now, joined_world, launched


def train(world: World, folder: Path, data: Path, stop: StopSignal) -> None:
    # Not imported by the launching process, which does not train.
    from small_training import trainer

    from ssd.loading.tensor_file import TensorFile
    from ssd.params import load_params
    from ssd.training.checkpoints import CheckpointFolder
    from stages.fused_best import fused_scores

    params = load_params(folder.with_suffix(".yaml"))
    exact = params.train.freeze_bn
    running = trainer(params, TensorFile(data), world=world, colours=0.0 if exact else 0.5)
    if exact:
        model = running.step.model
        running.step.frozen_norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    images: list[list[int]] = []

    def note(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if model.training:
            images.append(world.gather(len(inputs[0])))
        # Only now: before the first step, a signal ends a process at once.
        (folder / f"pid{world.rank}").write_text(str(os.getpid()))

    running.step.model.register_forward_pre_hook(note)
    with CheckpointFolder(folder, params.train.keep_best) if world.is_main else nullcontext() as checkpoints:
        world.barrier()  # the folder is there
        result = running.run(checkpoints, stop=stop)
    fused = None
    if params.train.keep_best > 1:
        fused = asdict(fused_scores(running, [result.weights, *result.others] if result else []))
    if result is None:
        return
    torch.save(result.weights, folder.with_suffix(".pt"))
    digest = hashlib.sha256()
    for name in sorted(result.weights):
        digest.update(result.weights[name].contiguous().numpy().tobytes())
    history = [asdict(row) for row in result.history]
    report = {"history": history, "digest": digest.hexdigest(), "images": images, "fused": fused}
    folder.with_suffix(".json").write_text(json.dumps(report))


def main() -> None:
    num_processes, restarts, data, *folders = sys.argv[1:]
    torch.set_num_threads(1)
    if not launched():
        sys.exit(launch([__file__, *sys.argv[1:]], int(num_processes), int(restarts)))
    stop = StopSignal()
    stop.install()
    with joined_world("cpu", stop) as world:
        for folder in folders:
            train(world, Path(folder), Path(data), stop)
    exit_now(0)


if __name__ == "__main__":
    main()
