"""What a data set holds and no split uses: nothing of it is passed over without a line in the report."""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import TypeVar

from ssd.layouts import SPLITS
from ssd.prepare.annotations import Problem
from ssd.prepare.readers.folder_files import FolderFiles, is_image
from ssd.prepare.readers.split_names import Grouping

T = TypeVar("T")


def unused_images(files: FolderFiles, used: Set[str], num_objects: Mapping[str, int]) -> list[Problem]:
    """A problem for each image that is not in `used`; its annotated objects are lost with it."""
    left = [name for name in files.images if name not in used]
    problems = [Problem(name, None, "in no split", "unused", 1, num_objects.get(name, 0)) for name in left]
    for name in files.unnameable:
        printable = name.encode(errors="surrogateescape").decode(errors="replace")
        problems.append(
            Problem(printable, None, "its name is not valid UTF-8; rename it", "dropped", int(is_image(name)))
        )
    return problems


def unused_labels(files: FolderFiles, known: Set[str], needed: str) -> list[Problem]:
    """A problem for each label file that is not in `known`; `needed` is what it would have to be."""
    reason = f"not used: it is not {needed}"
    return [Problem(name, None, reason, "unused") for name in files.labels if name not in known]


def unused_lists(grouping: Grouping) -> list[Problem]:
    """A problem for each list or folder of images that makes up no split."""
    return [Problem(name, None, f"not used: {reason}", "unused") for name, reason in grouping.unused.items()]


def without_unannotated(
    entries: Mapping[str, Sequence[T]], is_annotated: Callable[[T], bool]
) -> tuple[dict[str, list[T]], list[Problem]]:
    """The splits without a val or test in which nothing is annotated: their labels were not published.

    Returns:
        the splits that are left, and a problem for each other one; its images are not counted in it.
    """
    bare = [
        split
        for split, members in entries.items()
        if split != "train" and members and not any(map(is_annotated, members))
    ]
    reason = "not used: none of its images is annotated"
    left = {split: list(members) for split, members in entries.items() if split not in bare}
    return left, [Problem(split, None, reason, "unused") for split in bare]


def without_copies(
    splits: Mapping[str, Sequence[T]], key: Callable[[T], str]
) -> tuple[dict[str, list[T]], list[Problem]]:
    """The splits without a val or test of the very images of another one, as small data sets have it.

    Returns:
        the splits that are left, and a problem for each other one.
    """
    left: dict[str, list[T]] = {}
    problems = []
    for split in (name for name in SPLITS if name in splits):
        images = set(map(key, splits[split]))
        same = next(
            (other for other, members in left.items() if images and set(map(key, members)) == images), None
        )
        if same:
            problems.append(Problem(split, None, f"not used: its images are those of {same}", "unused"))
        else:
            left[split] = list(splits[split])
    return left, problems
