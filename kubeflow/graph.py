"""The stages of dvc.yaml as DVC sees them, in an order in which they can run, as JSON on standard output.

Runs where DVC is installed; `pipeline.py`, which has kfp beside it instead, reads the output.
"""

import json
import sys
from pathlib import Path
from typing import Any

import networkx
from dvc.repo import Repo
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parents[1]


def read_graph(root: Path) -> list[dict[str, Any]]:
    """The stages of a project, each after those it needs.

    Returns:
        For each stage {"stage": its name, "after": names of the stages whose outputs it reads}, without those
        that come before one of the others anyway.
    """
    with Repo(str(root)) as repo:
        edges = networkx.relabel_nodes(repo.index.graph, lambda stage: stage.name)
    needs = networkx.transitive_reduction(edges)
    order = networkx.lexicographical_topological_sort(needs.reverse())
    return [{"stage": name, "after": sorted(needs.successors(name))} for name in order]


def default_gpus(train: dict[str, Any]) -> int:
    """GPUs that train asks Kubernetes for, unless a run says otherwise.

    Args:
        train: that section of params.yaml. Where `device` and `devices` are auto, none: on a cluster without
            GPUs the step would wait for ever.
    """
    if train["device"] == "cpu":
        return 0
    if train["devices"] == "auto":
        return int(train["device"] == "cuda")
    return int(train["devices"])


def main() -> None:
    params = YAML(typ="safe", pure=True).load(REPOSITORY / "params.yaml")
    graph = {"stages": read_graph(REPOSITORY), "gpus": default_gpus(params["train"])}
    json.dump(graph, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
