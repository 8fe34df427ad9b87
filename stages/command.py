"""Wrapper of every stage: reads the params once, prints errors of one line as such, unwinds on signals."""

import argparse
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from ssd.errors import LostProcessError, UserError, storage_errors_explained
from ssd.interrupt import StopSignal
from ssd.params import PUBLISHED_WEIGHTS, Params, TrackingParams, load_params
from ssd.preflight.finding import Finding
from ssd.tracking.model_files import fetch_model, is_mlflow_uri
from stages.dvc_process import end_with_dvc
from stages.only_one import only_one

MAKERS = {
    "data/raw": "download",
    "data/tensors": "preprocess",
    "reports/preprocess": "preprocess",
    "models/model.pt": "train",
    "models/best": "train",
    "reports/train": "train",
    "reports/metrics.json": "evaluate",
    "reports/evaluate": "evaluate",
}
"""The stage that makes each file or folder that another stage reads."""

CHECK = "check_params"
"""The stage before all others."""

UNLOCKED = {"train", "check", "pack"}
"""Those that only look; train: of its processes, the one that writes takes the lock; and pack, of which each
process writes a file of its own."""

MODEL = "models/model.pt"
"""What train writes."""

stop = StopSignal()
"""SIGTERM and Ctrl-C unwind the stack, so that temporary files and MLflow runs are closed."""


def command(stage: Callable[[Params], None]) -> Callable[[Sequence[str]], None]:
    """Make the `main(arguments)` of a stage, which takes no arguments but --help.

    It reads params.yaml. A UserError ends it with one line, exit code 2; a LostProcessError with one line and
    exit code 1. In one folder, a stage runs once at a time.
    """
    name = Path(stage.__code__.co_filename).stem

    @functools.wraps(stage)
    def main(arguments: Sequence[str] = ()) -> None:
        parser_of(stage).parse_args(arguments)
        logging.basicConfig(format="%(message)s")
        logging.getLogger("ssd").setLevel(logging.INFO)
        try:
            stop.install()
            end_with_dvc(stop)
            params = load_params()
            with storage_errors_explained(), nullcontext() if name in UNLOCKED else only_one(name):
                stage(params)
        except UserError as error:
            print(f"{sentence(error)}{way_back()}", file=sys.stderr)
            sys.exit(2)
        except LostProcessError as error:
            print(error, file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print(f"stopped{way_back()}", file=sys.stderr)
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


def parser_of(stage: Callable[..., None]) -> argparse.ArgumentParser:
    """A parser that knows --help, which prints what the module of the stage says of itself."""
    module = sys.modules[stage.__module__]
    return argparse.ArgumentParser(
        prog=f"python -m stages.{Path(str(module.__file__)).stem}",
        description=module.__doc__,
        epilog="All settings are in params.yaml.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def way_back() -> str:
    """How to get the former outputs of a stage that DVC has run in the workspace, if there are any."""
    stage, lock = os.environ.get("DVC_STAGE", ""), Path("dvc.lock")
    if stage in ("", CHECK) or Path.cwd() != workspace() or not lock.is_file():
        return ""
    if f"\n  {stage}:\n" not in lock.read_text(encoding="utf-8"):
        return ""
    return f"; DVC has removed what {stage} wrote before, `dvc checkout` brings it back"


def stop_if_fatal(findings: Sequence[Finding]) -> None:
    """Print the warnings, and stop if there is more than warnings.

    Raises:
        UserError: one line for each fatal finding.
    """
    for finding in findings:
        if not finding.fatal:
            print(f"warning: {finding}", file=sys.stderr)
    fatal = [str(finding) for finding in findings if finding.fatal]
    if fatal:
        raise UserError("\n".join(fatal))


def workspace() -> Path:
    """The main workspace: where downloads and the tracking store live, also in a temporary experiment.

    DVC runs `dvc exp run --temp` and `--queue` in a copy that it deletes, and names the original in
    DVC_ROOT.
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def resolve_weights(params: Params, root: Path) -> str:
    """`model.weights` as none, a published name, or the absolute path of a file.

    Raises:
        UserError: MLflow has no such file, or it is the one that training replaces.
    """
    weights = params.model.weights
    if weights in ("none", *PUBLISHED_WEIGHTS):
        return weights
    path = resolve_model(weights, params.tracking, root)
    if path.resolve() == (root / MODEL).resolve():
        raise UserError(
            f"found {weights}, which DVC removes before training; copy it to another place, or name its run "
            "in MLflow, runs:/ID",
            key="model.weights",
        )
    return str(path)


def resolve_model(text: str, settings: TrackingParams, root: Path) -> Path:
    """The absolute path of a model file that params.yaml names by a path or an MLflow URI.

    Relative paths count from the main workspace; a file that MLflow keeps is fetched to checkpoints/weights.

    Raises:
        UserError: MLflow has no such file.
    """
    if is_mlflow_uri(text):
        return fetch_model(text, settings, root, root / "checkpoints/weights")
    return root / Path(text).expanduser()
