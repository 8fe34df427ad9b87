"""In place of `dvc exp run`: `python stub_experiment.py FOLDER NAME VALUES` "trains" in a few milliseconds.

The scores follow from train.lr and, a little, from train.seed. A learning rate above one fails; FOLDER/slow
makes each epoch wait for that file to go. What ends well leaves FOLDER/done/NAME.
"""

import json
import os
import sys
import time
from pathlib import Path

NUM_EPOCHS = 3


def score(lr: float, epoch: int, seed: int = 0) -> float:
    """Best at lr = 0.5."""
    return round((1 - abs(lr - 0.5)) * epoch / NUM_EPOCHS + 0.01 * seed, 6)


def table(lr: float, num_epochs: int, seed: int) -> str:
    scores = {epoch: score(lr, epoch, seed) for epoch in range(1, num_epochs + 1)}
    rows = [f"{epoch}\t{value}\t{value}" for epoch, value in scores.items()]
    return "\n".join(["epoch\tval_map50\tval_f1", *rows, ""])


def main() -> None:
    folder, name, values = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    rate, seed = values.get("train.lr", 0.3), values.get("train.seed", 0)
    with (folder / "started").open("a") as file:
        file.write(f"{name} {rate} {os.environ.get('MLFLOW_RUN_ID', '')}\n")
    sys.stderr.write(f"Reproducing experiment '{name}'\n")
    if rate > 1:
        sys.exit("no such rate\nERROR: failed to reproduce 'train': exited with 1")
    for epoch in range(1, NUM_EPOCHS + 1):
        part = Path(os.environ["SSD_HISTORY_COPY"]).with_suffix(".part")
        part.write_text(table(rate, epoch, seed))
        part.replace(os.environ["SSD_HISTORY_COPY"])
        while (folder / "slow").exists():
            time.sleep(0.01)
    (folder / "done").mkdir(exist_ok=True)
    part = folder / f"done/.{name}"
    part.write_text(json.dumps({"params": values, "history": table(rate, NUM_EPOCHS, seed)}))
    part.replace(folder / f"done/{name}")


if __name__ == "__main__":
    main()
