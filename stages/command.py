"""Wrapper of every stage: reads the params once, prints errors of one line as such, unwinds on signals."""

import functools
import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from ssd.errors import LostProcessError, UserError
from ssd.interrupt import StopSignal
from ssd.params import PUBLISHED_WEIGHTS, Params, load_params
from stages.dvc_process import end_with_dvc
from stages.only_one import only_one

MAKERS = {
    "data/raw": "download",
    "data/tensors": "preprocess",
    "reports/preprocess": "preprocess",
    "models/model.pt": "train",
    "reports/evaluate": "evaluate",
}
"""The stage that makes each file or folder that another stage reads."""

UNLOCKED = {"train", "check", "folds"}
"""Those that only look, and train: of its processes, the one that writes takes the lock."""

stop = StopSignal()
"""SIGTERM and Ctrl-C unwind the stack, so that temporary files and MLflow runs are closed."""


def command(stage: Callable[[Params], None]) -> Callable[[], None]:
    """Make the `main()` of a stage: it reads params.yaml; a UserError ends it with one line, exit code 2.

    A LostProcessError ends it with one line and exit code 1. In one folder, a stage runs once at a time.
    """
    name = Path(stage.__code__.co_filename).stem

    @functools.wraps(stage)
    def main() -> None:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("ssd").setLevel(logging.INFO)
        try:
            stop.install()
            end_with_dvc(stop)
            params = load_params()
            with nullcontext() if name in UNLOCKED else only_one(name):
                stage(params)
        except UserError as error:
            print(sentence(error), file=sys.stderr)
            sys.exit(2)
        except LostProcessError as error:
            print(error, file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(130)
        finally:
            stop.uninstall()

    del main.__wrapped__  # its signature is not the stage's
    return main


def sentence(error: UserError) -> str:
    """The message with what the package does not know: the file of a key, the stage that makes a path."""
    text = f"params.yaml: {error}" if error.key else str(error)
    for made, stage in MAKERS.items():
        if error.path is not None and Path(os.path.relpath(error.path)).is_relative_to(made):
            return f"{text}; `dvc repro -f {stage}` makes it again"
    return text


def workspace() -> Path:
    """The main workspace: where downloads and the tracking store live, also in a temporary experiment.

    DVC runs `dvc exp run --temp` and `--queue` in a copy that it deletes, and names the original in
    DVC_ROOT.
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def resolve_weights(weights: str, root: Path) -> str:
    """`model.weights` with a file's path made absolute: relative ones count from the main workspace."""
    return weights if weights in ("none", *PUBLISHED_WEIGHTS) else str(root / Path(weights).expanduser())
