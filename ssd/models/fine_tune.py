"""Initial weights from a model.pt of this project: all of the network, and the class heads by name."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ssd.errors import UserError
from ssd.models.family import Config, Model
from ssd.models.priors import alike
from ssd.models.published import KEY
from ssd.models.saved import load_model

log = logging.getLogger(__name__)

MAY_DIFFER = {"input_size", "num_classes", "levels", "anchor_levels", "strides"}
"""Fields of a config that do not decide which weights there are, or whose difference shapes tell."""


def check_fits(config: Config, path: Path) -> None:
    """Compare a network with that of a model.pt.

    Raises:
        UserError: the file cannot be read, or its network is another; the message says which settings are.
    """
    _raise_if_other(config, load_model(path)[0].config, path)


def load_own_model(model: Model, path: Path, class_names: Sequence[str]) -> None:
    """Load a model.pt into a network, in place.

    A class that both know keeps its filters, background too. The others, and levels that the file does not
    have or has with another number of priors, stay randomly initialised, and a line says which.

    Args:
        model: with randomly initialised weights.
        path: of the model.pt.
        class_names: those of `model`, without background.

    Raises:
        UserError: as `check_fits`.
    """
    source, known = load_model(path)
    _raise_if_other(model.config, source.config, path)
    own, given = model.state_dict(), source.state_dict()
    heads = model.class_heads().keys() if list(class_names) != known else set()
    fits = {
        key: value
        for key, value in given.items()
        if key in own and own[key].shape == value.shape and key.rpartition(".")[0] not in heads
    }
    model.load_state_dict(fits, strict=False)
    copied = set(fits)
    if heads:
        copied |= _copy_classes(model, source, class_names, known)
        kept = [name for name in class_names if name in known]
        fresh = [name for name in class_names if name not in known]
        log.info("model.weights: %s: class heads kept for %s", path, ", ".join(kept) or "no class")
        if fresh:
            log.info("model.weights: class heads randomly initialised for %s", ", ".join(fresh))
    if not alike(source.config.cell_priors, model.config.cell_priors):
        log.warning("model.weights: %s was trained with other priors than those of `model`", path)
    missing = sorted({key.rpartition(".")[0] for key in own.keys() - copied})
    if missing:
        log.warning(
            "model.weights: %s lacks %d of the layers, or has them in another shape, such as %s: randomly "
            "initialised",
            path,
            len(missing),
            missing[0],
        )


def _copy_classes(model: Model, source: Model, class_names: Sequence[str], known: Sequence[str]) -> set[str]:
    """Copy the confidence filters of background and of common classes; return the names of what was loaded.

    The bias of a class that is new is the mean of those that are kept: a trained detector gives any object a
    low probability at most priors, and a bias of zero would make the new one the likeliest everywhere.
    """
    pairs = [(0, 0)] + [
        (label, known.index(name) + 1) for label, name in enumerate(class_names, 1) if name in known
    ]
    new = [label for label, name in enumerate(class_names, 1) if name not in known]
    to, from_ = ([pair[side] for pair in pairs] for side in (0, 1))
    loaded = set()
    given = source.class_heads()
    for name, ours in model.class_heads().items():
        if name not in given:
            continue
        theirs = given[name]
        if any(
            a.shape[0] != b.shape[0] or a.shape[2:] != b.shape[2:] for a, b in zip(ours, theirs, strict=True)
        ):
            continue
        for own, other in zip(ours, theirs, strict=True):
            own[:, to] = other[:, from_]
        if new and len(to) > 1:
            ours[1][:, new] = theirs[1][:, from_[1:]].mean(dim=1, keepdim=True)
        loaded |= {f"{name}.weight", f"{name}.bias"}
    return loaded


def _raise_if_other(config: Config, found: Config, path: Path) -> None:
    if config.family != found.family:
        raise UserError(
            f"{path} is of another family; set model.family: {found.family}, or take other weights",
            key=KEY,
        )
    wanted, given = asdict(config), asdict(found)
    other = [key for key in wanted if key not in MAY_DIFFER and wanted[key] != given[key]]
    if given.get("neck") == "none" and given["heads"] != "conv1x1":
        other = [key for key in other if key != "width"]  # no layer of the file has it
    if other:
        settings = ", ".join(f"model.{key}: {given[key]}" for key in other)
        raise UserError(
            f"{path} was trained with other settings; set {settings}, or take other weights", key=KEY
        )
