"""The description of an MLflow run: what was trained on what, how good it is, where the pictures are."""

from collections.abc import Mapping

from ssd.tracking.overview import OURS
from ssd.tracking.run_name import data_name

FIGURES = {
    "test/coco_map50": "mAP@0.5 (COCO)",
    "test/coco_map": "mAP (COCO)",
    "test/voc_map_area": "mAP@0.5 (Pascal VOC)",
    "test/voc_f1": "F1 (mean over classes)",
}


def description(params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """Markdown, by what the run holds so far.

    Args:
        params: of the run, as `section.key`; a child run has those of its stage alone.
        metrics: of the run.
    """
    if objective := params.get("tune.objective"):
        return f"{searched(objective, metrics)}\n\n{OURS}"
    parts = [trained(params, metrics), best(params, metrics), table(metrics), WHERE if metrics else "", OURS]
    return "\n\n".join(filter(None, parts))


WHERE = "Under *Artifacts*: pictures in `report`, figures of each class in `per_class.json`."


def searched(objective: str, metrics: Mapping[str, float]) -> str:
    """Of the run of a search: its trials are runs of their own."""
    best = f" Best trial so far: {metrics['trial/best']:.4g}." if "trial/best" in metrics else ""
    return f"A search for the highest validation `{objective}`; its trials are the runs below it.{best}"


def trained(params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """What was trained, on what, by which settings; empty for a run without a training."""
    if "model.backbone" not in params or "data.source" not in params:
        return ""
    counts = [
        f"{metrics[key]:.0f} {name}"
        for key, name in {"data/train_images": "training", "data/val_images": "validation"}.items()
        if key in metrics
    ]
    images = f" ({', '.join(counts)} images)" if counts else ""
    settings = ", ".join(
        f"{key.replace('_', ' ')} {params[f'train.{key}']}"
        for key in ("epochs", "batch_size", "lr", "seed")
        if f"train.{key}" in params
    )
    network = f"{params['model.backbone']} at {params['model.input_size']} pixels, {weights(params)}"
    return f"`{data_name(params)}`{images} by {network}; {settings}."


def weights(params: Mapping[str, str]) -> str:
    """Where the training began."""
    found = params.get("model.weights", "none")
    return "from scratch" if found == "none" else f"from `{found}`"


def best(params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """The epoch that was kept; empty before there is one."""
    if "best/epoch" not in metrics or "best/score" not in metrics:
        return ""
    selected_by = params.get("train.select_by", "score")
    return f"Best epoch: {metrics['best/epoch']:.0f}, by {selected_by} {metrics['best/score']:.4g}."


def table(metrics: Mapping[str, float]) -> str:
    """Figures of the test split with their intervals; empty before there are any."""
    rows = [
        f"| {name} | {metrics[key]:.4f} | {interval(key, metrics)} |"
        for key, name in FIGURES.items()
        if key in metrics
    ]
    return (
        "\n".join(["| test split | figure | 95 % interval |", "| --- | --- | --- |", *rows]) if rows else ""
    )


def interval(key: str, metrics: Mapping[str, float]) -> str:
    """ "0.831 to 0.879", or "-"."""
    low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"
