"""The pipeline logs to the servers of compose.yaml: alone, two at once, with MLflow's killed and back."""

import csv
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc_project import make_project, set_params
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from waiting import wait_until

from ssd.files import sha256
from tests.on_demand.mlflow_server import MlflowServer
from tests.on_demand.object_store import KEYS, ObjectStore
from tests.on_demand.postgres import Postgres, running_postgres
from tests.torture.marked import Marked, start_marked

FOLDERS = {"model": "models", "export": "models/export", "report": "reports", "": "reports"}
"""Where the files of a folder of artifacts come from; others are of the folder's name in reports/."""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("postgres") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def server(
    postgres: Postgres, store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    running = MlflowServer(postgres, store, tmp_path_factory.mktemp("mlflow") / "log")
    yield running
    running.kill()


@pytest.fixture(scope="module")
def project(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run of the pipeline, which logged to the server."""
    folder = make_project(tmp_path_factory.mktemp("team") / "project", **{"tracking.uri": server.uri})
    text = ended(start_marked(folder, "dvc", "repro"))
    assert "MLflow" not in text, text
    return folder


def test_a_run_is_in_the_database_and_its_artifacts_in_the_bucket(
    project: Path, server: MlflowServer, store: ObjectStore, postgres: Postgres, tmp_path: Path
) -> None:
    run = run_of(project, server)
    check_complete(run, project, server, tmp_path)
    assert postgres.query("SELECT count(*), min(status) FROM runs") == "1|FINISHED"
    onnx = [key for key in store.sizes("mlflow") if key.endswith("/ssd.onnx")]
    assert [store.read("mlflow", key) for key in onnx] == [(project / "models/export/ssd.onnx").read_bytes()]
    assert not list((project / "mlflow").glob("mlflow.db*")), "nothing of it is in a store here"


def test_two_pipelines_log_at_once_to_runs_of_their_own(
    project: Path, server: MlflowServer, tmp_path: Path
) -> None:
    copies = [copied(project, tmp_path / f"seed{seed}", server, **{"train.seed": seed}) for seed in (1, 2)]
    running = [start_marked(copy, "dvc", "repro") for copy in copies]
    texts = [ended(each) for each in running]
    assert not any("MLflow" in text for text in texts), texts
    runs = [run_of(copy, server) for copy in copies]
    assert [run.data.params["train.seed"] for run in runs] == ["1", "2"]
    for run, copy in zip(runs, copies, strict=True):
        check_complete(run, copy, server, tmp_path)


def test_a_training_goes_on_without_the_server_and_sends_what_waited_when_it_is_back(
    project: Path, server: MlflowServer, tmp_path: Path
) -> None:
    copy = copied(project, tmp_path / "back", server, **{"train.seed": 3, "train.epochs": 8})
    training = start_marked(copy, "dvc", "repro", "--single-item", "train")
    wait_until(lambda: "epoch   2" in training.text, training.process)
    server.kill()
    wait_until(lambda: "epoch   5" in training.text, training.process)
    training.signal_all(signal.SIGSTOP)  # or it might end before the server has started
    server.start()
    training.signal_all(signal.SIGCONT)
    text = ended(training)
    assert "MLflow failed while logging" in text
    assert "MLflow misses" not in text
    run = run_of(copy, server)
    assert run.info.status == "FINISHED"
    assert logged_epochs(run, server) == epochs_on_disk(copy) == list(range(1, 9))
    check_artifacts(run, copy, server, tmp_path / "downloaded", {"model", "train"})


def test_what_a_server_that_stays_away_misses_is_named_and_the_next_stage_logs_again(
    project: Path, server: MlflowServer, tmp_path: Path
) -> None:
    copy = copied(project, tmp_path / "away", server, **{"train.seed": 4})
    training = start_marked(copy, "dvc", "repro", "--single-item", "train")
    wait_until(lambda: "epoch   1" in training.text, training.process)
    server.kill()
    text = ended(training)
    assert epochs_on_disk(copy) == [1, 2, 3, 4]
    (said,) = [line for line in text.splitlines() if "MLflow misses of this stage: " in line]
    assert "metrics (" in said
    print(said)  # noqa: T201 (to see)

    server.start()
    text = ended(start_marked(copy, "dvc", "repro", "--single-item", "evaluate"))
    assert "MLflow" not in text, text
    run = run_of(copy, server)
    assert "test/coco_map" in run.data.metrics
    client = MlflowClient(server.uri)
    assert {each.info.status for each in all_runs(client)} == {"FINISHED", "KILLED"}, "none is left open"


def copied(project: Path, folder: Path, server: MlflowServer, **changes: object) -> Path:
    """The project with its cache, and other params: what they do not touch is not run again."""
    shutil.copytree(project, folder, symlinks=True, ignore=shutil.ignore_patterns("checkpoints"))
    set_params(folder, **{"tracking.uri": server.uri}, **changes)
    return folder


def ended(running: Marked) -> str:
    """What it has printed when it has ended well."""
    try:
        assert running.wait() == 0, "a process was left behind"
    finally:
        running.signal_all(signal.SIGKILL)
    assert running.process.returncode == 0, running.text
    return running.text


def run_of(project: Path, server: MlflowServer) -> Run:
    """The one run of the project's model."""
    digest = sha256(project / "models/model.pt")
    (run,) = (
        run for run in all_runs(MlflowClient(server.uri)) if run.data.tags.get("model_sha256") == digest
    )
    return run


def all_runs(client: MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name("ssd")
    return list(client.search_runs([experiment.experiment_id]))


def check_complete(run: Run, project: Path, server: MlflowServer, folder: Path) -> None:
    """All stages have logged all that they have to the run, which has ended."""
    assert run.info.status == "FINISHED"
    assert logged_epochs(run, server) == epochs_on_disk(project) == [1, 2, 3, 4]
    assert {"best/score", "test/coco_map", "test/training_criterion_loss"} <= run.data.metrics.keys()
    kinds = {"model", "train", "evaluate", "export", "report"}
    check_artifacts(run, project, server, folder / run.info.run_id, kinds)


def check_artifacts(run: Run, project: Path, server: MlflowServer, folder: Path, expected: set[str]) -> None:
    """What the server sends for this run is, byte by byte, what is on disk here; no keys of S3 are needed."""
    assert not KEYS.keys() & os.environ.keys()
    folder.mkdir()
    root = Path(MlflowClient(server.uri).download_artifacts(run.info.run_id, "", str(folder)))
    found = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    assert expected <= {path.parts[0] for path in found}
    made_here = {Path("per_class.json")}  # a table, which no stage writes as a file
    for path in set(found) - made_here:
        kind, *below = path.parent.parts or ("",)
        source = project / FOLDERS.get(kind, f"reports/{kind}") / Path(*below) / path.name
        assert sha256(root / path) == sha256(source), path
    print(f"{run.info.run_name}: {len(found)} artifacts as on disk")  # noqa: T201 (figures to see)


def logged_epochs(run: Run, server: MlflowServer) -> list[int]:
    """The steps of the learning rate, which is logged per epoch."""
    return sorted(each.step for each in MlflowClient(server.uri).get_metric_history(run.info.run_id, "lr"))


def epochs_on_disk(project: Path) -> list[int]:
    with (project / "reports/train/history.tsv").open() as table:
        return [int(row["epoch"]) for row in csv.DictReader(table, delimiter="\t")]
