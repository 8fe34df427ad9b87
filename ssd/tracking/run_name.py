"""The name of an MLflow run: first what differs from other runs, then what was trained on what."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

Values = Mapping[str, object]

SECTIONS = ("data.", "preprocess.", "model.", "augment.", "train.")
"""Those that decide which model is made. Other settings of a later stage make a child run."""

IN_BASE = {"data.source", "data.path", "model.backbone", "model.input_size", "data.folds", "data.fold"}
NOT_IN_NAME = {
    *("data.archives", "data.mirrors", "preprocess.workers", "train.workers", "train.cache", "train.device"),
    *("train.devices", "train.restarts", "train.keep_best", "train.val_batch_size"),
    "train.checkpoint_minutes",
}
"""Where a run finds its data, and how it uses the machine."""

SEPARATOR = " · "
LONGEST, LONGEST_VALUE = 60, 30
"""Characters of all differences, of which those that do not fit are counted, and of a value."""


def run_name(values: Values, references: Sequence[Values], experiment: str = "") -> str:
    """As in "lr=0.001 seed=1 · shapes resnet18-128 · busy-bee".

    Args:
        values: all params of the run, as `section.key`.
        references: the params that others are run with, the nearest first: a difference from the first is
            named before one from the second. A key that a reference lacks does not differ from it.
        experiment: DVC's name of the experiment; empty where there is none.
    """
    fold = f"fold={values['data.fold']} of {values['data.folds']}" if values.get("data.folds") else ""
    differences = joined([fold, *(named(key, values) for key in different_keys(values, references))])
    return SEPARATOR.join(filter(None, [differences, base_name(values), experiment]))


def child_name(stage: str, before: str, after: Values) -> str:
    """Of the run of a stage that another run has with other params: "nms_iou=0.6 · evaluate".

    Args:
        stage: its name.
        before: its params in the other run, as text of `repr(sorted(params.items()))`.
        after: its params in this one.
    """
    changed = [named(key, after) for key in sorted(after) if repr((key, after[key])) not in before]
    return SEPARATOR.join([joined(changed) or "again", stage])


def base_name(values: Values) -> str:
    """ "shapes resnet18-128"; the user's own data by the name of the folder."""
    return f"{data_name(values)} {values['model.backbone']}-{values['model.input_size']}"


def data_name(values: Values) -> str:
    """ "voc2007", or the name of the user's own folder or archive."""
    source = str(values["data.source"])
    own = source == "folder" or source.endswith("_dir") or source == "coco_json"
    return (PurePath(str(values["data.path"])).name.removesuffix(".zip") if own else "") or source


def different_keys(values: Values, references: Sequence[Values]) -> Iterator[str]:
    """Each key whose value differs from that of a reference, once."""
    seen = set(IN_BASE | NOT_IN_NAME)
    for reference in references:
        for key, value in values.items():
            known = reference.get(key, value)
            if key.startswith(SECTIONS) and key not in seen and known != value and str(known) != str(value):
                seen.add(key)
                yield key


def named(key: str, values: Values) -> str:
    """ "lr=0.001"; with its section where another section has the key, too."""
    short = key.partition(".")[2]
    is_unique = sum(other.partition(".")[2] == short for other in values) == 1
    value = values[key]
    text = f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")
    cut = text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
    return f"{short if is_unique else key}={cut}"


def joined(differences: Sequence[str]) -> str:
    """Those that fit, and how many more there are."""
    text, present = "", [item for item in differences if item]
    for number, item in enumerate(present):
        longer = f"{text} {item}".strip()
        if len(longer) > LONGEST:
            return f"{text} +{len(present) - number}"
        text = longer
    return text
