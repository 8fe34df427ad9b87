"""`python -m stages.tune`: search values of params.yaml with a better validation score; no stage of dvc.yaml.

What is searched is `tune` in params.yaml. Each trial is an experiment of DVC and a run of MLflow below the
search's own. A search that was stopped or killed goes on where it was; one with another space, objective,
data or code is another search. In the end the best values and those of params.yaml are trained by several
seeds and measured on the test split, which nothing reads before. The last line says how to apply the best.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from ssd.errors import UserError
from ssd.files import write_bytes, write_json
from ssd.loading.tensor_file import TensorFile
from ssd.params import Params, load_params
from ssd.params_space import Value
from ssd.plots.figures import save_figure
from ssd.processes.launch import threads_per_process
from ssd.tracking.run import Run
from ssd.training.checkpoints import fingerprint
from ssd.tuning.figures import Point, importance_figure, search_figure
from ssd.tuning.space import check_space, distributions, named, start_values
from ssd.tuning.store import NOTE, SAME_AS, VALUES, Store
from ssd.tuning.study import best_trial, importances
from ssd.tuning.verdict import verdict
from stages.command import command, stop, workspace
from stages.dvc_lock import FOLDER as DVC_FOLDER
from stages.dvc_lock import mend_dvc_lock
from stages.experiment import Ways, command_for_workspace, wait_until_begun
from stages.final_seeds import Figures, read_figures, run_all, seed_experiments, sentence, table
from stages.pool import PAUSE, Pool
from stages.run import stage_run
from stages.search import Search, best_score, line_of
from stages.train import NOT_IN_FINGERPRINT, TRAIN_FILE, VAL_FILE, code_files

REPORTS = Path("reports/tune")
TEST_FILE = Path("data/tensors/test")


@command
def main(params: Params) -> None:
    # A search that was killed may have left a DVC that prepares an experiment.
    if wait_until_begun(searches(), PAUSE):
        params = load_params()
    check_space(params)
    check_git()
    prepare_data()
    check_splits()
    tune(params, Ways())


def searches() -> Path:
    """Where each search has a folder."""
    return workspace() / "checkpoints/tune"


def check_git() -> None:
    """Raise UserError where DVC has nothing to stand its experiments on."""
    found = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], capture_output=True, check=False)
    if found.returncode != 0:
        raise UserError(
            "experiments stand on git, and this folder is in no repository with a commit; commit first"
        )


def prepare_data() -> None:
    """Bring the data up to date, so that no trial has to. Raises UserError if that fails."""
    for folder in (DVC_FOLDER, DVC_FOLDER / "exps"):  # one for the workspace, one for experiments
        mend_dvc_lock(folder)
    command = [sys.executable, "-m", "dvc", "repro", "--quiet", "preprocess"]
    ended = subprocess.run(command, env=os.environ | this_python(), check=False)
    if ended.returncode != 0:
        raise UserError("`dvc repro preprocess` failed, see above")


def check_splits() -> None:
    """Check that val can judge trials, and that test is something else.

    Raises:
        UserError: one has no object, or both are the same images.
    """
    val, test = TensorFile(VAL_FILE), TensorFile(TEST_FILE)
    for file, hint in (
        (val, "preprocess.val_fraction above 0, and preprocess.train_on_val to false"),
        (test, "preprocess.test_fraction above 0"),
    ):
        if not file.images_with_objects():
            raise UserError(f"{file.path}: no object that counts, and a search needs some: set {hint}")
    if val.image_ids == test.image_ids:
        raise UserError(
            "found 0, so test is val: what was tuned on it would be measured on it; allowed: above 0",
            key="preprocess.test_fraction",
        )


def tune(params: Params, ways: Ways) -> None:
    """Search, then compare. `ways`: how experiments are run."""
    digest, objective = digest_of(params), params.tune.objective
    folder = searches() / digest
    store = Store(folder / "study.db", distributions(params))
    title = f"tune {objective}"
    try:
        with stage_run(params, "tune", sections={"tune"}, name=title, resume=store.run_id() or None) as run:
            store.keep_run_id(run.id)
            pool = Pool(params.tune.workers, ways, lambda: variables(run.id, params.tune.workers), PAUSE)
            search = Search(params, f"tune-{digest[:6]}", folder, store, pool)
            run_search(search, run)
            conclude(search, run)
    except KeyboardInterrupt:
        print("trials have saved how far they are; the same command goes on from there", file=sys.stderr)
        raise
    finally:
        store.close()


def variables(run_id: str, workers: int) -> dict[str, str]:
    """Of the environment of trials: PATH, the MLflow run above theirs, and threads that share the cores."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(threads_per_process(workers))
    return {**this_python(), "OMP_NUM_THREADS": threads, **({"MLFLOW_RUN_ID": run_id} if run_id else {})}


def this_python() -> dict[str, str]:
    """A PATH on which `python`, as dvc.yaml calls stages, is this one, whether its environment is active."""
    return {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def digest_of(params: Params) -> str:
    """Names a search: all that decides its trials, not how many there are, nor the workers and the seeds."""
    settings = params.model_dump(include={"model", "augment", "train", "tune"})
    for name in ("trials", "workers", "seeds"):
        del settings["tune"][name]
    settings["train"] = {
        key: value for key, value in settings["train"].items() if key not in NOT_IN_FINGERPRINT
    }
    return fingerprint(settings, [TRAIN_FILE, VAL_FILE], code_files())


def run_search(search: Search, run: Run) -> None:
    """Run it, and keep the tables and MLflow up to date."""
    trials, tune = search.store.trials(), search.params.tune
    num_ended = sum(trial.state.is_finished() for trial in trials)
    print(
        f"{tune.trials} trials by {tune.objective}, {num_ended} have ended; logs in {search.folder}",
        flush=True,
    )
    with tqdm(total=tune.trials, initial=num_ended, disable=None, unit="trial") as bar:
        for trial in search.run(stop):
            trials = search.store.trials()
            best = best_trial(trials)
            if trial.state.is_finished():
                log_trial(run, search, trial, best)
                write_bytes(REPORTS / "trials.tsv", trials_table(search, trials).encode())
                bar.update()
            tail = f"  (best: {best.value:.4f}, trial {best.number})" if best else ""
            bar.write(line_of(trial, tune) + (tail if trial.state.is_finished() else ""))
            sys.stdout.flush()
    write_bytes(REPORTS / "trials.tsv", trials_table(search, trials).encode())
    save_figure(search_figure(points(trials), tune.objective), REPORTS / "history.png")
    num_complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
    save_figure(importance_figure(importances(trials), num_complete), REPORTS / "importance.png")


def log_trial(run: Run, search: Search, trial: FrozenTrial, best: FrozenTrial | None) -> None:
    """Its value and the best so far in the search's run; a tag in its own if it was pruned."""
    run.metrics(
        {"trial/value": trial.value if trial.state == TrialState.COMPLETE else None}, step=trial.number
    )
    if best is not None:
        run.metrics({"trial/best": best.value}, step=trial.number)
    if trial.state == TrialState.PRUNED:
        run.tag_below(search.experiment(trial).name, {"pruned": "true"})


def trials_table(search: Search, trials: Sequence[FrozenTrial]) -> str:
    """A row for each trial, with a header, tab-separated."""
    keys = list(search.params.tune.space)
    lines = [["trial", "state", "value", "epochs", *keys, "same_as", "experiment", "note"]]
    for trial in trials:
        value = "" if trial.state != TrialState.COMPLETE else f"{trial.value:.6g}"
        attributes = trial.user_attrs
        values = [str(attributes[VALUES][key]) for key in keys]
        tail = [str(attributes.get(SAME_AS, "")), search.experiment(trial).name, attributes.get(NOTE, "")]
        state = trial.state.name.lower()
        lines.append([str(trial.number), state, value, str(len(trial.intermediate_values)), *values, *tail])
    return "\n".join("\t".join(" ".join(cell.split()) for cell in line) for line in lines) + "\n"


def points(trials: Sequence[FrozenTrial]) -> list[Point]:
    """Of the trials that have ended, for the picture."""
    found = []
    for trial in trials:
        if trial.state.is_finished():
            is_pruned = trial.state == TrialState.PRUNED
            found.append(Point(trial.number, best_score(trial) if is_pruned else trial.value, is_pruned))
    return found


def conclude(search: Search, run: Run) -> None:
    """Train the best values and the start by several seeds, and say which are better.

    Raises:
        UserError: no trial has a value, or a training fails.
    """
    trials, params = search.store.trials(), search.params
    best, start, objective = best_trial(trials), start_values(params), params.tune.objective
    if best is None:
        raise UserError("no trial has a value; see reports/tune/trials.tsv")
    is_start = best.user_attrs[VALUES] == start
    prefix = f"{search.name}-{measurement(params)}"
    wanted: dict[str, tuple[str, Mapping[str, Value]]] = {"start": (f"{prefix}-start", {})}
    if not is_start:
        wanted["best"] = (f"{prefix}-best{best.number}", best.user_attrs[VALUES])
    print(f"best: trial {best.number}, val {objective} {best.value:.4f}, {named(best.user_attrs[VALUES])}")
    print(f"training {' and '.join(wanted)} by {params.tune.seeds} other seeds", flush=True)
    experiments = {
        what: seed_experiments(params, name, values, search.folder) for what, (name, values) in wanted.items()
    }
    every = [item for group in experiments.values() for item in group]
    run_all(every, search.pool, stop, partial(print, flush=True))
    figures = {
        what: [read_figures(item, params, search.pool) for item in group]
        for what, group in experiments.items()
    }
    print(table(figures, objective))
    summary = summary_of(search, best, is_start, figures)
    print(summary["verdict"])
    write_json(REPORTS / "summary.json", summary)
    log_end(run, summary)
    if not is_start:
        print(f"take the best values over: {command_for_workspace(search.experiment(best))}")


def measurement(params: Params) -> str:
    """In the names of the last experiments: measured on other images, or otherwise, they are others.

    DVC need not train those again.
    """
    return fingerprint(params.model_dump(include={"evaluate"}), [TEST_FILE], {})[:4]


def summary_of(
    search: Search, best: FrozenTrial, is_start: bool, figures: Mapping[str, Sequence[Figures]]
) -> dict[str, object]:
    """The content of summary.json."""
    objective, trials = search.params.tune.objective, search.store.trials()
    summary: dict[str, object] = {
        "search": search.name,
        "objective": objective,
        "trials": {state.name.lower(): sum(trial.state == state for trial in trials) for state in TrialState},
        "best": {
            "trial": best.number,
            "experiment": search.experiment(best).name,
            "value": best.value,
            "values": best.user_attrs[VALUES],
        },
        "importance": importances(trials),
        "seeds": {what: [asdict(item) for item in group] for what, group in figures.items()},
    }
    if is_start:
        return {**summary, "verdict": "no trial was better than the start: the values of params.yaml stay"}
    tests = {what: [item.test for item in group] for what, group in figures.items()}
    found = verdict(tests["best"], tests["start"])
    return {**summary, "difference": asdict(found), "verdict": sentence(found, objective, len(tests["best"]))}


def log_end(run: Run, summary: Mapping[str, object]) -> None:
    """The result in MLflow: tags, because a search that goes on with more trials may have another one."""
    best = summary["best"]
    assert isinstance(best, dict)
    run.metrics({"best/score": best["value"]})
    run.tags({f"best.{key}": str(value) for key, value in best["values"].items()})
    run.tags({"best_trial": str(best["trial"]), "verdict": str(summary["verdict"])})
    run.file(REPORTS, "tune")


if __name__ == "__main__":
    main(sys.argv[1:])
