"""Reads a user's folder with Pascal VOC XML, with lists in ImageSets/Main or without.

As exported by LabelImg (XML beside the images), CVAT (ImageSets/Main/default.txt, Train.txt), Label Studio
(Annotations, images), Roboflow (train, valid, test with XML beside the images), VoTT (a list per class and
split), or in the layout of the public data sets.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssd.errors import UserError
from ssd.prepare.annotations import Annotation, Catalogue, Found, ImageRef, Problem
from ssd.prepare.readers.folder_files import FolderFiles, bare, is_image, listing, parent, plain_parts, stem
from ssd.prepare.readers.leftovers import (
    unused_images,
    unused_labels,
    unused_lists,
    without_copies,
    without_unannotated,
)
from ssd.prepare.readers.pairing import image_for, most_alike, why_unpaired
from ssd.prepare.readers.split_names import Grouping, group_by_folder, group_by_lists, split_of
from ssd.prepare.readers.voc import read_list
from ssd.prepare.readers.voc_xml import AnnotationError, parse_annotation

_CLASS_LIST = re.compile(r".+_(train|val|trainval|test)", re.IGNORECASE)


@dataclass(frozen=True)
class _Entry:
    """An image as a split lists it, and its XML; None where there is none. source: the list, or ""."""

    id: str
    image: str | None
    xml: str | None
    source: str


Parsed = Mapping[str, Annotation | str]
"""XML file -> its annotation, or the reason why it cannot be read."""


def read_voc_folder(files: FolderFiles) -> Catalogue:
    """Read the images and annotations of a folder, divided by its lists or else by its folders.

    Of val and test, one without a single annotation is not used.

    Raises:
        UserError: no list or folder is for training, or there are lists in several places.
    """
    parsed = {name: _parse(files, name) for name in files.with_suffix(".xml")}
    grouping, entries = _entries_of_lists(files, parsed) or _entries_of_folders(files, parsed)
    entries, copies = without_copies(entries, lambda entry: entry.id)
    entries, unannotated = without_unannotated(entries, lambda entry: entry.xml is not None)
    images: dict[str, list[ImageRef]] = {split: [] for split in entries}
    problems: dict[str, list[Problem]] = {split: [] for split in entries}
    used: set[str] = set()
    for split, members in entries.items():
        listed: set[str] = set()
        for entry in members:
            found = _image_ref(files, entry, parsed, used, listed)
            if isinstance(found, ImageRef):
                images[split].append(found)
            else:
                problems[split].append(found)
    others = unused_labels(files, {*parsed, *_lists(files)}, "Pascal VOC XML or a list in ImageSets/Main")
    unused = [*copies, *unannotated, *unused_lists(grouping), *_unused(files, parsed, used), *others]
    made_of = {split: made for split, made in grouping.made_of.items() if split in entries}
    num_objects = sum(_num_objects(annotation) for annotation in parsed.values())
    found_all = Found(files.num_images, num_objects, "Pascal VOC XML", made_of, unused)
    return Catalogue(images, problems, found_all)


def _parse(files: FolderFiles, name: str) -> Annotation | str:
    try:
        return parse_annotation(files.root / name)
    except AnnotationError as error:
        return str(error)


def _num_objects(annotation: Annotation | str) -> int:
    return 0 if isinstance(annotation, str) else annotation.num_objects


def _lists(files: FolderFiles) -> list[str]:
    return [name for name in files.with_suffix(".txt") if f"/{parent(name)}".endswith("/ImageSets/Main")]


def _entries_of_lists(files: FolderFiles, parsed: Parsed) -> tuple[Grouping, dict[str, list[_Entry]]] | None:
    """What the lists in ImageSets/Main name; None if there is no list."""
    lists = _lists(files)
    places = sorted({parent(name) for name in lists})
    if not lists:
        return None
    if len(places) > 1:
        found = ", ".join(place.removesuffix("ImageSets/Main").rstrip("/") or "." for place in places)
        raise UserError(f"{files.root} holds several data sets: {found}; name one of them", key="data.path")
    grouping = group_by_lists(
        _by_name(lists), lambda name: read_list(files.root / name), f"{files.root / places[0]}"
    )
    base = places[0].removesuffix("ImageSets/Main")
    by_stem: dict[str, list[str]] = {}
    for name in parsed:
        by_stem.setdefault(stem(name), []).append(name)
    entries = {
        split: [_listed(files, by_stem, base, line, source) for line, source in lines]
        for split, lines in grouping.splits.items()
    }
    return grouping, entries


def _by_name(lists: Sequence[str]) -> dict[str, str]:
    """The lists by their names, without those of single classes if there are others.

    Such a list (cat_train.txt) repeats all images of its split; VoTT writes no others, one of them is enough.
    """
    names = {stem(name): name for name in lists}
    whole = {name: file for name, file in names.items() if split_of(name) or not _CLASS_LIST.fullmatch(name)}
    return whole or {name.rpartition("_")[2]: file for name, file in names.items()}


def _listed(
    files: FolderFiles, xml_by_stem: Mapping[str, list[str]], base: str, line: str, source: str
) -> _Entry:
    """What a line of a list means: an id, or an image's name with suffix; with or without its folder."""
    written = "/".join(plain_parts(line)) or line
    for name in dict.fromkeys((written, bare(written))):
        image = _image_of(files, f"{base}JPEGImages/{name}", name)
        usual = f"{base}Annotations/{name}.xml"
        others = xml_by_stem.get(stem(f"{name}.xml"), [])
        xml = usual if usual in others else most_alike(image or usual, others)
        if image or xml:
            return _Entry(name, image, xml, source)
    return _Entry(line, None, None, source)


def _image_of(files: FolderFiles, usual: str, name: str) -> str | None:
    """The image of a path without suffix: in its usual place, else the one file of this name."""
    found = files.images_of_stem(usual) or files.images_of_stem(name)
    return most_alike(usual, sorted(set(map(files.first_of_name, found))))


def _entries_of_folders(files: FolderFiles, parsed: Parsed) -> tuple[Grouping, dict[str, list[_Entry]]]:
    """Each image with the XML of its name; where several XML have it, with the one that is nearest.

    Raises:
        UserError: two XML are equally near.
    """
    every: dict[str, list[str]] = {}
    for name, annotation in parsed.items():
        image = _image_of_xml(files, name, annotation)
        if image:
            every.setdefault(image, []).append(name)
    xml_of = {image: _nearest(files, image, names) for image, names in every.items()}
    grouping = group_by_folder(files.images)
    entries = {
        split: [_Entry(bare(image), image, xml_of.get(image), source) for image, source in members]
        for split, members in grouping.splits.items()
    }
    return grouping, entries


def _nearest(files: FolderFiles, image: str, names: Sequence[str]) -> str:
    nearest = names[0] if len(names) == 1 else most_alike(image, names)
    if nearest is None:
        text = f"each of {listing(names)} could be for {image}; keep one of them"
        raise UserError(f"{files.root}: {text}", key="data.path")
    return nearest


def _image_of_xml(files: FolderFiles, name: str, annotation: Annotation | str) -> str | None:
    """The image that has the XML's name or, if none has, the name that is written in it."""
    if files.firsts_of_stem(stem(name)) or isinstance(annotation, str):
        return image_for(files, name)
    found = files.find(annotation.filename, [parent(name)])
    return found if found and is_image(found) else None


def _image_ref(
    files: FolderFiles, entry: _Entry, parsed: Parsed, used: set[str], listed: set[str]
) -> ImageRef | Problem:
    """The image of an entry, or why it is dropped; its files are added to `used`, its id to `listed`."""
    if entry.id in listed:
        if entry.image is None or entry.image in used:
            return Problem(entry.source, None, f"{entry.id} is listed twice", "dropped")
        used.add(entry.image)
        return Problem(entry.image, None, "another image has the same XML", "dropped", num_images=1)
    listed.add(entry.id)
    # An image of two splits is removed from one of them later, and counts once.
    num_images = int(entry.image is not None and entry.image not in used)
    used |= {name for name in (entry.image, entry.xml) if name}
    annotation = parsed[entry.xml] if entry.xml else "there is no XML of its name"
    if entry.image is None:
        reason = f"there is no image of the name {entry.id!r}"
        return Problem(entry.xml or entry.source, None, reason, "dropped", 0, _num_objects(annotation))
    if isinstance(annotation, str):
        return Problem(entry.xml or entry.image, None, annotation, "dropped", num_images)
    return ImageRef(entry.id, files.root / entry.image, entry.image, entry.xml or "", annotation)


def _unused(files: FolderFiles, parsed: Parsed, used: set[str]) -> list[Problem]:
    """Images of no split, with the objects of the XML beside them; then XML without an image."""
    of_image: dict[str, str] = {}
    for name in parsed:
        image = None if name in used else _image_of_xml(files, name, parsed[name])
        if image and image not in used:
            of_image.setdefault(image, name)
    objects = {image: _num_objects(parsed[name]) for image, name in of_image.items()}
    problems = unused_images(files, used, objects)
    taken = used | set(of_image.values())
    for name, annotation in parsed.items():
        if name not in taken:
            reason = annotation if isinstance(annotation, str) else why_unpaired(files, name, used, "XML")
            problems.append(Problem(name, None, reason, "dropped", 0, _num_objects(annotation)))
    return problems
