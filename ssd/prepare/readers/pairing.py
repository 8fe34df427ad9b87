"""Pairs annotation files with images of their name, where the two lie in different folders."""

from collections.abc import Container, Iterable, Sequence
from functools import lru_cache

from ssd.prepare.readers.folder_files import FolderFiles, listing, parent, stem
from ssd.prepare.readers.split_names import shared_parts, split_of_path

_UNLIKE = (-1, -1)


def pair_by_name(
    files: FolderFiles, names: Iterable[str], without: Container[str] = ()
) -> dict[str, list[str]]:
    """Image -> those of the annotation files `names` that are for it, in their order.

    Of images that differ only in their suffix, the one with the most usual suffix is taken.

    Args:
        without: images that are not to be paired.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        image = image_for(files, name, without)
        if image:
            found.setdefault(image, []).append(name)
    return found


def image_for(files: FolderFiles, name: str, without: Container[str] = ()) -> str | None:
    """The image with the name of the annotation file `name`; None if there is none, or it is not clear."""
    return most_alike(name, [image for image in files.firsts_of_stem(stem(name)) if image not in without])


def why_unpaired(files: FolderFiles, name: str, paired: Container[str], kind: str) -> str:
    """Why an annotation file is not used.

    Args:
        paired: the images that have one.
        kind: what the file is, for the message.
    """
    image = image_for(files, name)
    if image in paired:
        return f"another {kind} is used for {image}"
    images = files.firsts_of_stem(stem(name))
    return (
        f"it is not clear which image it is for: {listing(images, 2)}" if images else "no image has its name"
    )


def most_alike(path: str, candidates: Sequence[str]) -> str | None:
    """The one of `candidates` whose folders are most like those of `path`; None if several equally are.

    First count the folders next to the file (photos/cam1/a.jpg, xml/cam1/a.xml), then the outermost ones. A
    file in the folder of another split is no candidate.
    """
    folder = parent(path)
    likeness = {name: _likeness(folder, name.rpartition("/")[0]) for name in candidates}
    highest = max(likeness.values(), default=_UNLIKE)
    best = [name for name, value in likeness.items() if value == highest]
    return best[0] if len(best) == 1 and highest != _UNLIKE else None


@lru_cache(maxsize=1_000_000)  # many files of one name in many folders
def _likeness(folder: str, other: str) -> tuple[int, int]:
    """How many inner and outer folders two paths share."""
    split, other_split = split_of_path(f"{folder}/"), split_of_path(f"{other}/")
    if split and other_split and split != other_split:
        return _UNLIKE
    parts, others = folder.split("/"), other.split("/")
    return len(shared_parts([parts[::-1], others[::-1]])), len(shared_parts([parts, others]))
