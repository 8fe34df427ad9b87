"""A folder of the user's own in VOC layout: is it one, and a copy of what the pipeline needs of it."""

import os
import shutil
from pathlib import Path

from tqdm import tqdm

from ssd.errors import UserError

VOC_FOLDERS = ("JPEGImages", "Annotations", "ImageSets/Main")


def copy_voc_dir(path: str, root: Path, target: Path) -> None:
    """Check the folder that `data.path` names and copy its images, annotations and lists to `target`.

    Hidden files and folders inside the three are left out. A link is copied as the file that it
    leads to, which must lie in the user's folder as well.

    Args:
        path: as in params.yaml; relative to `root`, `~` is the home folder.
        target: is created; holds JPEGImages, Annotations and ImageSets/Main afterwards.

    Raises:
        UserError: the folder is missing, not in VOC layout, without a list to train on or not
            readable, or a link leads out of it.
    """
    source = root / Path(path).expanduser()
    _check_folders(path, source)
    _check_lists(path, source / "ImageSets/Main")
    try:
        files = [file for name in VOC_FOLDERS for file in _plain_files(path, source, name)]
        for name in VOC_FOLDERS:
            (target / name).mkdir(parents=True)
        for file in tqdm(files, f"copying {path}", unit="file", leave=False, disable=None):
            shutil.copyfile(file, target / file.relative_to(source))
    except OSError as error:
        raise UserError(f"params.yaml: data.path: {path} cannot be copied: {error}") from None


def _check_folders(path: str, source: Path) -> None:
    needed = f"needed is a folder that holds {', '.join(VOC_FOLDERS)}"
    if not source.is_dir():
        raise UserError(f"params.yaml: data.path: {path} is not a folder (looked for {source}); {needed}")
    missing = [name for name in VOC_FOLDERS if not (source / name).is_dir()]
    if missing:
        meant = " or ".join(os.path.normpath(Path(path, near)) for near in _voc_folders_near(source))
        hint = f"; perhaps you meant {meant}" if meant else ""
        raise UserError(f"params.yaml: data.path: {path} lacks {', '.join(missing)}; {needed}{hint}")


def _check_lists(path: str, lists: Path) -> None:
    if any((lists / name).is_file() for name in ("train.txt", "trainval.txt")):
        return
    found = sorted(file.name for file in lists.glob("[!.]*.txt"))[:5]
    raise UserError(
        f"params.yaml: data.path: {path}/ImageSets/Main holds neither train.txt nor trainval.txt "
        f"(found: {', '.join(found) or 'no list'}); needed is one of them, an image id a line"
    )


def _voc_folders_near(source: Path) -> list[str]:
    """Folders in VOC layout up to two levels below `source` (at most three), else the one above it."""
    mains = sorted([*source.glob("*/ImageSets/Main"), *source.glob("*/*/ImageSets/Main")])
    below = [main.parent.parent for main in mains if _is_voc_folder(main.parent.parent)]
    if below:
        return [str(folder.relative_to(source)) for folder in below[:3]]
    return [".."] if _is_voc_folder(source / "..") else []


def _is_voc_folder(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in VOC_FOLDERS)


def _plain_files(path: str, source: Path, name: str) -> list[Path]:
    """Files directly in `source / name`, sorted; refuses those that a link puts elsewhere."""
    top = os.path.realpath(source)
    files = sorted(file for file in (source / name).iterdir() if not file.name.startswith("."))
    for file in files:
        if not Path(os.path.realpath(file)).is_relative_to(top):
            where = f"{path}/{name}/{file.name}"
            raise UserError(f"params.yaml: data.path: {where} is a link out of {path}; put the file there")
    return [file for file in files if file.is_file()]
