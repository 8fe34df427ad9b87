"""Reads a user's folder with YOLO's text files: splits by data.yaml, by lists of images, or by folders.

As exported by Ultralytics (images/train, labels/train, data.yaml with paths, lists or text files), Roboflow
(train/images, train/labels), CVAT (obj_train_data, train.txt, obj.names), Label Studio (images, labels,
classes.txt), or with the labels beside the images.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from ssd.errors import UserError
from ssd.prepare.annotations import Annotation, Catalogue, Found, ImageRef, Problem
from ssd.prepare.readers.folder_files import (
    FolderFiles,
    closest,
    is_image,
    listing,
    parent,
    plain_parts,
    stem,
)
from ssd.prepare.readers.leftovers import (
    unused_images,
    unused_labels,
    unused_lists,
    without_copies,
    without_unannotated,
)
from ssd.prepare.readers.pairing import most_alike, pair_by_name, why_unpaired
from ssd.prepare.readers.split_names import Grouping, group_by_folder, group_by_lists
from ssd.prepare.readers.yolo_config import YoloConfig, name_lists, read_config
from ssd.prepare.readers.yolo_labels import Labels, looks_like_labels, parse_labels

_NOTES = {
    "polygon": "{} polygons were read as the boxes around them",
    "pose": "of {} poses, the keypoints are not used",
    "confidence": "the confidence of {} boxes is not used",
}


@dataclass(frozen=True)
class _Texts:
    """The text files of a folder.

    labels: label files, parsed or the reason why not; lists: of images, by lines; others: why they are
    not used.
    """

    labels: Mapping[str, Labels | str]
    lists: Mapping[str, list[str]]
    others: Mapping[str, str]


def read_yolo_folder(files: FolderFiles, class_names: Sequence[str]) -> Catalogue:
    """Read the images and labels of a folder. `class_names` are used if it has no names itself.

    An image without a label file has no objects; val or test without a single label file is not used.

    Raises:
        UserError: there are no class names, they or the splits cannot be read, or no image is to train on.
    """
    config = read_config(files)
    names = config.names or tuple(class_names)
    if not names:
        raise UserError(
            f"{files.root}: holds neither data.yaml with names nor classes.txt; "
            "add one of them, or set data.classes"
        )
    texts = _read_texts(files, names, config)
    grouping, splits, missing = _split(files, config, texts)
    label_of = _label_files(files, texts.labels)
    splits, copies = without_copies(splits, str)
    splits, unannotated = without_unannotated(splits, label_of.__contains__)
    images: dict[str, list[ImageRef]] = {}
    problems: dict[str, list[Problem]] = {}
    for split, paths in splits.items():
        found = [_image_ref(files, path, label_of, texts.labels) for path in dict.fromkeys(paths)]
        images[split] = [ref for ref in found if isinstance(ref, ImageRef)]
        problems[split] = [problem for problem in found if isinstance(problem, Problem)]
        problems[split] += missing.pop(split, [])
    return Catalogue(
        images,
        problems,
        _found(
            files,
            config,
            texts,
            grouping,
            splits,
            label_of,
            [*copies, *unannotated, *chain(*missing.values())],
        ),
        names,
    )


def _read_texts(files: FolderFiles, names: Sequence[str], config: YoloConfig) -> _Texts:
    labels: dict[str, Labels | str] = {}
    lists: dict[str, list[str]] = {}
    others: dict[str, str] = dict(config.unused)
    known = {*name_lists(files), config.file}
    for name in files.with_suffix(".txt"):
        if name in known:
            continue
        of_image = bool(files.images_of_stem(stem(name)))
        try:
            text = files.text(name)
        except (OSError, UnicodeDecodeError) as error:
            (labels if of_image else others)[name] = f"not readable ({error})"
            continue
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines and is_image(lines[0]):
            lists[name] = lines
        elif of_image or (lines and looks_like_labels(text)):
            labels[name] = parse_labels(text, names, pose=config.pose)
        else:
            others[name] = "neither labels nor a list of images"
    return _Texts(labels, lists, others)


def _split(
    files: FolderFiles, config: YoloConfig, texts: _Texts
) -> tuple[Grouping, dict[str, list[str]], dict[str, list[Problem]]]:
    """What makes up the splits; the images of each; and list entries without an image, by split."""
    missing: dict[str, list[Problem]] = defaultdict(list)
    if "train" in config.splits:
        grouping = _by_config(files, config, texts)
    elif texts.lists:
        grouping = group_by_lists(
            _by_name(files, texts.lists), lambda name: texts.lists[name], str(files.root)
        )
    else:
        grouping = group_by_folder(files.images)
        return grouping, {split: [path for path, _ in group] for split, group in grouping.splits.items()}, {}
    splits: dict[str, list[str]] = {}
    for split, entries in grouping.splits.items():
        splits[split] = []
        for written, source in entries:
            found = files.find(written, [*config.near, parent(source)])
            if found and is_image(found):
                splits[split].append(found)
            else:
                missing[split].append(Problem(source, None, f"there is no image {written}", "dropped"))
    return grouping, splits, missing


def _by_name(files: FolderFiles, lists: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in lists:
        name = stem(path).removeprefix("autosplit_")
        if name in found:
            text = f"both {found[name]} and {path} are lists of {name}; name the folder of one of them"
            raise UserError(f"{files.root}: {text}", key="data.path")
        found[name] = path
    return found


def _by_config(files: FolderFiles, config: YoloConfig, texts: _Texts) -> Grouping:
    """The images of the folders and lists that data.yaml names."""
    splits: dict[str, list[tuple[str, str]]] = {}
    made_of: dict[str, str] = {}
    unused: dict[str, str] = {}
    for split, written in config.splits.items():
        members: list[tuple[str, str]] = []
        places: list[str] = []
        for entry in written:
            found = _resolve(files, config, texts, entry)
            if found is None:
                unused[f"{config.file}, {split}: {entry}"] = "there is no such folder of images, or list"
                continue
            place, paths = found
            places.append(place)
            members += [(path, place) for path in paths]
        if members:
            splits[split], made_of[split] = members, f"{', '.join(places)} ({config.file})"
    if "train" not in splits:
        folders = sorted({f"{parent(path)}/" for path in files.images})
        text = (
            f"train: {', '.join(config.splits['train'])}: no images there; images are in {listing(folders)}"
        )
        raise UserError(f"{files.root / config.file}: {text}", key="data.path")
    return Grouping(splits, made_of, unused)


def _resolve(
    files: FolderFiles, config: YoloConfig, texts: _Texts, entry: str
) -> tuple[str, list[str]] | None:
    """The folder or list that an entry of data.yaml means, and its images as paths or as written."""
    if entry.lower().endswith(".txt"):
        name = files.find(entry, config.near)
        return (name, texts.lists[name]) if name and name in texts.lists else None
    parts = plain_parts(entry)
    with_images = {folder for path in files.images for folder in _folders_above(path)}
    wanted = ["/".join(part for part in (near, *parts) if part) for near in config.near]
    place = next((folder for folder in wanted if folder in with_images), None)
    for length in range(len(parts), 0, -1):
        if place is not None:
            break
        end = "/" + "/".join(parts[-length:])
        fitting = sorted(folder for folder in with_images if f"/{folder}".endswith(end))
        place = closest(fitting, config.near) if fitting else None
    if place is None:
        return None
    inside = f"{place}/" if place else ""
    return inside or "./", [path for path in files.images if path.startswith(inside)]


def _folders_above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:length]) for length in range(len(parts) + 1)]


def _label_files(files: FolderFiles, labels: Mapping[str, Labels | str]) -> dict[str, str]:
    """Image -> label file: in labels/ where the image is in images/, beside it, or the nearest of its name.

    Of a.jpg and a.png only the first has it; see `_image_ref`.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    images = [path for path in files.images if path == files.first_of_name(path)]
    for place_of in (_usual_folder, parent):
        for path in images:
            candidate = f"{place_of(path)}/{stem(path)}.txt".removeprefix("/")
            if path not in found and candidate in labels and candidate not in taken:
                found[path] = candidate
                taken.add(candidate)
    free = [name for name in labels if name not in taken]
    for path, names in pair_by_name(files, free, without=found).items():
        nearest = most_alike(path, names)
        if nearest:
            found[path] = nearest
    return found


def _usual_folder(path: str) -> str:
    """The folder of an image with its last "images" replaced by "labels", as Ultralytics does."""
    parts = parent(path).split("/")
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return "/".join(parts)


def _image_ref(
    files: FolderFiles, path: str, label_of: Mapping[str, str], labels: Mapping[str, Labels | str]
) -> ImageRef | Problem:
    label = label_of.get(path)
    parsed = labels[label] if label else None
    first = files.first_of_name(path)
    if first != path and first in label_of:
        return Problem(path, None, f"{first} has the same label file", "dropped", num_images=1)
    if isinstance(parsed, str):
        return Problem(label or path, None, parsed, "dropped", num_images=1)
    annotation = parsed.annotation if parsed else Annotation(None, (), normalised=True)
    return ImageRef(path, files.root / path, path, label or path, annotation)


def _num_objects(labels: Labels | str) -> int:
    return 0 if isinstance(labels, str) else labels.annotation.num_objects


def _found(
    files: FolderFiles,
    config: YoloConfig,
    texts: _Texts,
    grouping: Grouping,
    splits: Mapping[str, Sequence[str]],
    label_of: Mapping[str, str],
    unused_splits: Sequence[Problem],
) -> Found:
    used = {path for paths in splits.values() for path in paths}
    objects = {path: _num_objects(texts.labels[label]) for path, label in label_of.items()}
    matched = set(label_of.values())
    unmatched = [
        Problem(
            name, None, why_unpaired(files, name, label_of, "label file"), "dropped", 0, _num_objects(labels)
        )
        for name, labels in texts.labels.items()
        if name not in matched
    ]
    others = [Problem(name, None, f"not used: {reason}", "unused") for name, reason in texts.others.items()]
    others += unused_labels(
        files, {*texts.labels, *texts.lists, *texts.others, *name_lists(files), config.file}, "YOLO's"
    )
    unused = [
        *unused_splits,
        *unused_lists(grouping),
        *unmatched,
        *others,
        *unused_images(files, used, objects),
    ]
    kinds: Counter[str] = Counter()
    for label in {label_of[path] for path in used if path in label_of}:
        labels = texts.labels[label]
        kinds += Counter() if isinstance(labels, str) else labels.kinds
    notes = [text.format(kinds[kind]) for kind, text in _NOTES.items() if kinds[kind]]
    unlabelled = sum(path not in label_of for path in used)
    if unlabelled:
        notes.append(f"{unlabelled} of {len(used)} images have no label file, so no objects")
    return Found(
        files.num_images,
        sum(map(_num_objects, texts.labels.values())),
        f"YOLO labels, class names from {config.names_file or 'data.classes'}",
        {split: made for split, made in grouping.made_of.items() if split in splits},
        unused,
        tuple(notes),
    )
