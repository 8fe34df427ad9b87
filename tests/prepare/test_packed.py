"""Images that other processes have packed: preprocess makes the same of them as of the image files."""

from collections.abc import Collection
from pathlib import Path

import pytest
from data_params import data_params, preprocess_params
from PIL import Image
from safetensors.numpy import load_file, save_file
from voc_folder import DOG, annotation_xml, encode, picture, write_folder, write_image

from ssd.errors import UserError
from ssd.files import sha256
from ssd.params import PreprocessParams
from ssd.prepare import packed as packing
from ssd.prepare.decode import DecodedImage, decode_image, decode_images
from ssd.prepare.packed import PackedImages, shard_name, write_packed
from ssd.prepare.preprocess import preprocess
from ssd.prepare.readers.voc import read_voc
from ssd.prepare.splits import Listing, make_splits
from ssd.tensor_writer import write_shards

TURNED = Image.Exif()
TURNED[0x0112] = 6
KINDS = {
    "a": encode(picture(1)),
    "turned": encode(picture(2), exif=TURNED),
    "large": encode(picture(3, width=90, height=121)),
    "truncated": encode(picture(4))[:-50],
    "flat": encode(Image.new("L", (40, 30), 99), "PNG"),
}


def params(**changes: object) -> PreprocessParams:
    return preprocess_params(max_side=60, **changes)


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    """Images of all kinds in train, one that is gone, one that is in test, too."""
    lists = write_folder(tmp_path / "own", {"train": [*KINDS, "missing"], "val": ["v"], "test": ["t", "u"]})
    for stem, image in {**KINDS, "u": KINDS["a"]}.items():
        write_image(tmp_path / "own", stem, image, annotation_xml(DOG))
    found = make_splits(read_voc(lists), data_params("voc_dir"), params())
    (tmp_path / "own/JPEGImages/missing.jpg").unlink()
    return found


def pack(listing: Listing, folder: Path, shards: Collection[int], num_shards: int) -> PackedImages:
    """Pack these shards, each by what may be a machine of its own."""
    for shard in shards:
        paths = [ref.path for ref in listing.shard(shard, num_shards)]
        write_packed(folder / shard_name(shard, num_shards), decode_images(paths, params()), params())
    return PackedImages(folder, params())


def decoded(paths: list[Path]) -> list[DecodedImage]:
    return [decode_image(path, 60, 95) for path in paths]


def test_every_image_has_one_shard(listing: Listing) -> None:
    refs = [ref for members in listing.images.values() for ref in members]
    for num_shards in (1, 3, 20):
        shards = [listing.shard(number, num_shards) for number in range(num_shards)]
        assert sorted(ref.path for shard in shards for ref in shard) == sorted(ref.path for ref in refs)


def test_what_is_packed_comes_back_whole(listing: Listing, tmp_path: Path) -> None:
    paths = [ref.path for ref in listing.images["train"]]
    packed = pack(listing, tmp_path / "packed", [0], 1)
    images = list(packed.decode(paths, params()))
    assert images == decoded(paths)
    assert [isinstance(image.packed, str) for image in images] == [False, False, False, True, False, True]


@pytest.mark.parametrize(
    ("shards", "num_shards", "decoded_again"),
    [
        ([0], 1, ["missing"]),
        ([0, 1, 2], 3, ["missing"]),
        ([2], 3, ["a", "turned", "large", "truncated", "missing", "v", "t", "u"]),
    ],
    ids=["one file", "all files", "one of three"],
)
def test_preprocess_writes_the_same_bytes(
    listing: Listing,
    tmp_path: Path,
    shards: list[int],
    num_shards: int,
    decoded_again: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[Path] = []

    def decode_rest(paths: list[Path], params: PreprocessParams) -> object:
        read.extend(paths)
        return decode_images(paths, params)

    alone = preprocess(listing, [], params(), tmp_path)
    packed = pack(listing, tmp_path / "packed", shards, num_shards)
    monkeypatch.setattr(packing, "decode_images", decode_rest)
    shared = preprocess(listing, [], params(), tmp_path, packed)
    assert [path.stem for path in read] == decoded_again
    assert shared == alone
    for name, result in (("alone", alone), ("shared", shared)):
        write_shards(tmp_path / name, result.splits["train"].shards(num_shards), result.class_names)
    assert sha256(tmp_path / "alone") == sha256(tmp_path / "shared")


def test_the_same_images_are_the_same_file(listing: Listing, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        pack(listing, tmp_path / folder, [0], 1)
    assert sha256(tmp_path / "first") == sha256(tmp_path / "second")
    assert [path.name for path in (tmp_path / "first").iterdir()] == ["00000-of-00001.safetensors"]


def test_a_changed_image_is_decoded_again(listing: Listing, tmp_path: Path) -> None:
    packed = pack(listing, tmp_path / "packed", [0], 1)
    (path,) = [ref.path for ref in listing.images["val"]]
    path.write_bytes(KINDS["large"][:-1] + b"x")
    assert list(packed.decode([path], params())) == decoded([path])


@pytest.mark.parametrize("change", ["max_side", "jpeg_quality", "code", "Pillow"])
def test_what_was_packed_otherwise_is_not_used_and_a_warning_says_so(
    listing: Listing,
    tmp_path: Path,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pack(listing, tmp_path / "packed", [0, 1], 2)
    now = params()
    if change == "code":
        monkeypatch.setattr(packing, "sha256", lambda path: sha256(path)[::-1])
    elif change == "Pillow":
        monkeypatch.setattr("PIL.__version__", "0.1")
    else:
        now = params().model_copy(update={change: 50})
    packed = PackedImages(tmp_path / "packed", now)
    (warning,) = caplog.messages
    assert warning.endswith("packed: 2 of 2 files not used: packed with other settings or by other code")
    paths = [ref.path for ref in listing.images["train"]]
    assert list(packed.decode(paths, now)) == [
        decode_image(path, now.max_side, now.jpeg_quality) for path in paths
    ]


def test_a_damaged_file_is_told_in_one_line_that_says_how_to_mend_it(
    listing: Listing, tmp_path: Path
) -> None:
    pack(listing, tmp_path / "packed", [0], 1)
    (file,) = (tmp_path / "packed").iterdir()
    whole = file.read_bytes()
    mend = "00000-of-00001.safetensors: damaged: .*; delete this file"
    for content in (b"", whole[:-1], whole[:100], whole.replace(b'"orientation": 6', b'"orientation": 5')):
        file.write_bytes(content)
        with pytest.raises(UserError, match=mend):
            PackedImages(tmp_path / "packed", params())
    file.write_bytes(whole.replace(KINDS["a"], KINDS["a"][:-1] + b"x"))
    packed = PackedImages(tmp_path / "packed", params())
    with pytest.raises(UserError, match=f"{mend}.*decoded again"):
        list(packed.decode([listing.images["train"][0].path], params()))


def test_a_packed_file_is_safetensors_that_others_read(listing: Listing, tmp_path: Path) -> None:
    pack(listing, tmp_path / "packed", [0], 1)
    tensors = load_file(tmp_path / "packed/00000-of-00001.safetensors")
    assert sorted(tensors) == ["images", "table"]
    assert KINDS["a"] in tensors["images"].tobytes()


def test_a_shard_without_images_is_a_file_without_images(tmp_path: Path) -> None:
    assert write_packed(tmp_path / "packed/x.safetensors", [], params()) == (0, 0)
    assert list(PackedImages(tmp_path / "packed", params()).decode([], params())) == []


def test_a_full_disk_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "save_file", lambda tensors, path, told: save_file(tensors, "/dev/full/x"))
    with pytest.raises(UserError, match=r"x\.safetensors: cannot be written: .*; make room"):
        write_packed(tmp_path / "x.safetensors", [], params())
