"""`python -m stages.ui PORT`: MLflow's pages for a browser on this machine; no stage of dvc.yaml."""

import argparse
import os
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssd.errors import UserError
from ssd.serving.port import check_port
from ssd.tracking.disk import (
    check_database,
    database,
    locked_store,
    make_locations_relative,
    set_experiment_tag,
)
from ssd.tracking.overview import VIEW_TAG, address, view

HOST = "127.0.0.1"
NUM_ADDRESSES = 10
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Nothing is sent home, and it starts in a third of the time."""


def main(arguments: Sequence[str]) -> None:
    """Become MLflow's server."""
    parser = argparse.ArgumentParser(prog="python -m stages.ui", description=__doc__)
    parser.add_argument("port", nargs="?", default="5000", help="default: 5000")
    try:
        port = parse_port(parser.parse_args(arguments).port)
        check_port(HOST, port, f"make ui PORT={port % 65535 + 1}")
        experiments = mend_store(Path.cwd())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    say_where(f"http://{HOST}:{port}", experiments)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # One worker starts faster. The paths of artifacts are relative to the folder that MLflow is started in.
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [*command, "--backend-store-uri", "sqlite:///mlflow/mlflow.db"])  # noqa: S606 (no shell)


def parse_port(text: str) -> int:
    """A port from the command line.

    Raises:
        UserError: it is none.
    """
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise UserError(f"{text!r} is no port; choose one from 1024 to 65535, as in: make ui PORT=5001")
    return int(text)


def say_where(server: str, experiments: Mapping[str, str]) -> None:
    """Print the addresses to open: of the figures of each experiment, given by name and id."""
    if len(experiments) > 1:
        print("MLflow starts; then open in a browser:")
        for name, experiment_id in list(experiments.items())[:NUM_ADDRESSES]:
            print(f"  {name}: {address(server, experiment_id)}")
    else:
        page = next((address(server, experiment_id) for experiment_id in experiments.values()), server)
        print(f"MLflow starts; then open {page} in a browser.")
    print("Ctrl-C ends it.", flush=True)


def mend_store(root: Path) -> dict[str, str]:
    """Make of an old store what a new one is: locations are relative, experiments open on the figures.

    Returns:
        ids of the experiments by their names; {} where there is no store.

    Raises:
        UserError: the store cannot be opened.
    """
    if not database(root).exists():
        return {}
    try:
        with locked_store(root):
            check_database(root)
            make_locations_relative(root)
            return set_experiment_tag(root, VIEW_TAG, view())
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{database(root)}: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
