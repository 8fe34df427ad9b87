"""What reads foreign files, each as a function of a damaged file that says what became of it.

An answer is "refused" (one clear line) or "read": then nothing that the reader promises may be broken.
Anything else is raised: a broken promise as AssertionError, any other exception as it is.
"""

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import exports as ex
import numpy as np
import torch
from data_params import data_params, preprocess_params
from PIL import Image
from small_training import build
from torchvision.io import ImageReadMode, decode_image
from voc_folder import encode, picture

from ssd.errors import UserError
from ssd.layouts import SPLITS
from ssd.loading.tensor_file import TensorFile
from ssd.models.saved import load_model, save_model
from ssd.params import load_params
from ssd.prepare.images import ImageError, pack_image
from ssd.prepare.preprocess import declared_classes, preprocess, raise_if_unusable
from ssd.prepare.sources import read_own
from ssd.prepare.splits import make_splits
from ssd.prepare.summary import account, every_problem, list_problems, summarise
from ssd.source.own_folder import is_own
from ssd.source.unpack import unpack_tar, unpack_zip
from ssd.tensor_writer import AnnotatedImage, write_tensor_file
from ssd.training.checkpoints import CheckpointFolder

MAX_MESSAGE = 3000
"""Longest message, in characters."""

REPOSITORY = Path(__file__).parents[2]

Read = Callable[[bytes], str]


@dataclass(frozen=True)
class Target:
    """A reader of files. seeds: files without damage, by name; read: reads a damaged one of a name."""

    seeds: dict[str, bytes]
    read: Callable[[str, bytes], str]


def answer(read: Callable[[], object]) -> str:
    """ "refused" if `read` raises a UserError with a proper message, else "read"."""
    try:
        read()
    except UserError as error:
        message = str(error)
        assert len(message) <= MAX_MESSAGE, f"a message of {len(message)} characters"
        assert message.strip() and message.encode(), "no message"
        return "refused"
    return "read"


def folder_target(write: ex.Write, suffixes: tuple[str, ...], folder: Path) -> Target:
    """A user's folder, of which a file with one of these suffixes is damaged."""
    write(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in suffixes]
    seeds = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    data, params = data_params("folder", classes=list(ex.CLASSES)), preprocess_params(val_fraction=0.2)

    def read(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        try:
            return answer(lambda: _prepare(folder))
        finally:
            (folder / name).write_bytes(seeds[name])

    def _prepare(folder: Path) -> None:
        catalogue = read_own(data, folder)
        listing = make_splits(catalogue, data, params)
        result = preprocess(listing, declared_classes(data, catalogue), params, folder.parent)
        counts = account(result, catalogue.found)
        assert counts.num_images_kept + counts.num_images_dropped == counts.num_images_found, counts
        assert counts.num_objects_kept + counts.num_objects_dropped == counts.num_objects_found, counts
        problems = every_problem(result, catalogue.found)
        reports = [list_problems(problems), summarise(result, catalogue.found)]
        assert all(json.dumps(report, allow_nan=False, ensure_ascii=False).encode() for report in reports)
        for split in SPLITS:
            samples = result.splits[split].samples
            write_tensor_file(folder.parent / "tensors", samples, result.class_names)
        raise_if_unusable(result, strict=False, report="problems.json")

    return Target(seeds, read)


def image_target() -> Target:
    """Images: what preprocess keeps, training decodes, to the size that was written down."""
    image = picture(3, 40, 30)
    seeds = {format: encode(image, format) for format in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")}
    deep = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
    seeds |= {"PNG of 16 bits": encode(deep, "PNG"), "JPEG in CMYK": encode(image.convert("CMYK"), "JPEG")}
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds |= {"turned JPEG": encode(image, "JPEG", exif=exif), "palette": encode(image.convert("P"), "PNG")}

    def read(name: str, content: bytes) -> str:
        try:
            packed = pack_image(content, max_side=64, jpeg_quality=90)
        except ImageError as error:
            assert "\n" not in str(error), "a message of several lines"
            assert len(str(error)) <= MAX_MESSAGE
            return "refused"
        decoded = decode_image(
            torch.frombuffer(bytearray(packed.content), dtype=torch.uint8), ImageReadMode.RGB
        )
        assert tuple(decoded.shape) == (3, *packed.size), "another size than preprocess wrote"
        return "read"

    return Target(seeds, read)


def params_target(folder: Path) -> Target:
    folder.mkdir(parents=True)
    path = folder / "params.yaml"

    def read(name: str, content: bytes) -> str:
        path.write_bytes(content)
        return answer(lambda: load_params(path))

    return Target({"params.yaml": (REPOSITORY / "params.yaml").read_bytes()}, read)


def archive_target(folder: Path) -> Target:
    """Archives: nothing is written outside the folder, and not more than was packed many times over."""
    ex.labelimg(folder / "set")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "set").iterdir()):
            archive.write(path, f"set/{path.name}")
    taped = io.BytesIO()
    with tarfile.open(fileobj=taped, mode="w") as tar:
        tar.add(folder / "set", "set")

    def read(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        target = folder / "inside/target"
        target.mkdir(parents=True)
        before = _files_outside(folder, target)
        try:
            if name.endswith(".zip"):
                return answer(lambda: unpack_zip(folder / name, target, is_own))
            return answer(lambda: unpack_tar(folder / name, target, ["set"]))
        finally:
            assert _files_outside(folder, target) == before, "a file outside the folder"
            assert not any(path.is_symlink() for path in target.rglob("*")), "a link"
            shutil.rmtree(target)

    return Target({"a.zip": packed.getvalue(), "a.tar": taped.getvalue()}, read)


def _files_outside(folder: Path, target: Path) -> set[Path]:
    return {path for path in folder.parent.rglob("*") if not path.is_relative_to(target)}


def model_target(folder: Path) -> Target:
    """A model file is refused, or the very model."""
    folder.mkdir(parents=True)
    model = build(backbone="shufflenet_v2_x0_5")
    path = folder / "model.pt"
    class_names = ["zebra", "cat", "dog", "horse", "cow", "sheep", "bird", "boat"]
    save_model(path, model.state_dict(), model.config, class_names, {"match_iou": 0.5})
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    def check() -> None:
        loaded, names = load_model(path)
        assert names == class_names, "other class names"
        found = loaded.state_dict()
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights), "other weights"

    def read(name: str, content: bytes) -> str:
        path.write_bytes(content)
        return answer(check)

    return Target({"model.pt": path.read_bytes()}, read)


def tensor_target(folder: Path) -> Target:
    """A tensor file is refused, or has the very content."""
    folder.mkdir(parents=True)
    path = folder / "train.safetensors"
    samples = [
        AnnotatedImage(
            f"{n}", encode(picture(n)), (30, 40), [(1, 2, 20, 20 + n)], [1 + n % 2], [n == 1], [n == 2]
        )
        for n in range(4)
    ]
    write_tensor_file(path, samples, ["cat", "dog"])
    whole = _content(TensorFile(path))

    def read(name: str, content: bytes) -> str:
        path.write_bytes(content)
        return answer(check)

    def check() -> None:
        assert _content(TensorFile(path)) == whole, "other content"

    return Target({"train.safetensors": path.read_bytes()}, read)


def _content(file: TensorFile) -> list[object]:
    tensors = (file.sizes, file.boxes, file.labels, file.difficult, file.crowd, file.box_offsets)
    images = [file.image(index).numpy().tobytes() for index in range(len(file))]
    return [file.class_names, file.image_ids, *(tensor.tolist() for tensor in tensors), *images]


def checkpoint_target(folder: Path) -> Target:
    """Of two states, the newer is damaged: it is loaded unchanged or passed over for the older one."""
    with CheckpointFolder(folder, keep_best=1) as checkpoints:
        for step in (100, 200):
            checkpoints.save({"step": step, "weights": torch.full((50,), float(step))}, step)
    newest = folder / "step-00000200.pt"

    def read(name: str, content: bytes) -> str:
        newest.write_bytes(content)
        with CheckpointFolder(folder, keep_best=1) as checkpoints:
            state = checkpoints.load()
        assert state is not None, "both are lost"
        assert torch.equal(state["weights"], torch.full((50,), float(state["step"]))), "other weights"
        return "read" if state["step"] == 200 else "refused"

    return Target({"step-00000200.pt": newest.read_bytes()}, read)


def every_target(root: Path) -> dict[str, Callable[[], Target]]:
    """The makers of all targets, each with a folder of its own below `root`."""
    return {
        "VOC XML": lambda: folder_target(ex.labelimg, (".xml",), root / "voc/own"),
        "VOC lists": lambda: folder_target(
            lambda f: ex.voc(f, train=ex.STEMS[:7], val=ex.STEMS[7:]), (".txt",), root / "lists/own"
        ),
        "COCO JSON": lambda: folder_target(ex.cocos_own, (".json",), root / "coco/own"),
        "YOLO labels": lambda: folder_target(ex.beside, (".txt",), root / "yolo/own"),
        "YOLO data.yaml": lambda: folder_target(ex.several_folders, (".yaml",), root / "yaml/own"),
        "images of a folder": lambda: folder_target(ex.labelimg, (".jpg",), root / "jpegs/own"),
        "images": image_target,
        "params.yaml": lambda: params_target(root / "params"),
        "archives": lambda: archive_target(root / "archives/own"),
        "model.pt": lambda: model_target(root / "model"),
        "tensor file": lambda: tensor_target(root / "tensors"),
        "checkpoint": lambda: checkpoint_target(root / "checkpoints"),
    }
