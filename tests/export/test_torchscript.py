"""The TorchScript file: the same detections as the detector, from torch alone."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_detector import CLASS_NAMES, SETTINGS, SIZES, assert_same_detections, scenes
from torch import Tensor, nn
from torch._C import PyTorchFileReader

import ssd
from ssd.detector import IMAGES, Detector
from ssd.export.torchscript import METADATA, open_torchscript, to_torchscript, with_records
from ssd.models.heads import Heads


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_images", [1, 3])
@torch.inference_mode()
def test_it_equals_the_detector(
    torchscript_file: Path, detector: Detector, size: tuple[int, int], num_images: int
) -> None:
    run, _ = open_torchscript(torchscript_file)
    images = scenes(num_images, *size)
    expected = detector(images)
    assert_same_detections(run(images), expected)
    if size != (1, 1):
        assert (expected[3] > 5).all()


def test_its_batches_equal_its_single_images(torchscript_file: Path) -> None:
    run, _ = open_torchscript(torchscript_file)
    images = scenes(3, 80, 50)
    single = [run(image[None]) for image in images]
    assert_same_detections(run(images), tuple(torch.cat(column) for column in zip(*single, strict=True)))


@torch.inference_mode()
def test_an_image_without_detections_gives_zeros(detector: Detector, tmp_path: Path) -> None:
    strict = Detector(detector.model, replace(SETTINGS, score_threshold=0.9999))
    path = tmp_path / "strict.pt"
    path.write_bytes(to_torchscript(strict, CLASS_NAMES))
    run, _ = open_torchscript(path)
    for output in run(scenes(2, 30, 40)):
        assert not output.any()


def test_it_carries_names_size_and_thresholds(torchscript_file: Path) -> None:
    _, metadata = open_torchscript(torchscript_file)
    assert metadata == {
        "format": "ssd-detector-1",
        "images": IMAGES,
        "class_names": ["zebra", "café", "a b"],
        "input_size": 64,
        "score_threshold": 0.5,
        "nms_iou": 0.45,
        "max_detections": 45,
    }


FRESH_PROCESS = """
import json, sys
sys.modules["torchvision"] = sys.modules["ssd"] = None  # an import of either fails
import torch
torch.set_num_threads(1)
extra_files = {"metadata.json": ""}
module = torch.jit.load(sys.argv[1], _extra_files=extra_files)
assert json.loads(extra_files["metadata.json"])["class_names"][0] == "zebra"
torch.save(module(torch.load(sys.argv[2])), sys.argv[3])
"""


@torch.inference_mode()
def test_it_needs_torch_alone(torchscript_file: Path, detector: Detector, tmp_path: Path) -> None:
    images = scenes(2, 50, 70)
    torch.save(images, tmp_path / "images.pt")
    arguments = [torchscript_file, tmp_path / "images.pt", tmp_path / "outputs.pt"]
    command = [sys.executable, "-I", "-c", FRESH_PROCESS, *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_detections(torch.load(tmp_path / "outputs.pt"), detector(images))


def test_it_says_nothing_of_the_machine_that_made_it(torchscript_file: Path) -> None:
    with zipfile.ZipFile(torchscript_file) as archive:
        assert archive.testzip() is None
        records = {name: archive.read(name) for name in archive.namelist()}
    assert not [name for name in records if "debug" in name]
    for name, content in records.items():
        for place in (Path.cwd(), Path(torch.__file__).parents[1]):
            assert str(place).encode() not in content, name


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_its_format_is_as_torch_wrote_it(detector: Detector, torchscript_file: Path, tmp_path: Path) -> None:
    """Only the debug files are gone: the version, by which operators are read, and the alignment are kept."""
    traced = torch.jit.trace(detector, (scenes(2, 20, 30),), check_trace=False)
    traced.save(tmp_path / "torch.pt")
    with zipfile.ZipFile(tmp_path / "torch.pt") as one, zipfile.ZipFile(torchscript_file) as other:
        name = f"{other.namelist()[0].split('/')[0]}/version"
        assert other.read(name) == one.read("torch/version")
    reader = torch._C.PyTorchFileReader(str(torchscript_file))
    records = [name for name in reader.get_all_records() if name.startswith("data/")]
    assert len(records) > 50
    assert all(reader.get_record_offset(name) % 64 == 0 for name in records)


EXPORT = """
import sys
import torch
torch.set_num_threads(1)
from small_detector import CLASS_NAMES, SETTINGS, build_model
from ssd.detector import Detector
from ssd.export.torchscript import to_torchscript
open(sys.argv[1], "wb").write(to_torchscript(Detector(build_model(), SETTINGS), CLASS_NAMES))
if len(sys.argv) > 2:
    from ssd.export.onnx import to_onnx
    open(sys.argv[2], "wb").write(to_onnx(Detector(build_model(), SETTINGS), CLASS_NAMES, 18))
"""


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_network_of_newer_operators_is_written_in_a_newer_version_of_the_format(tmp_path: Path) -> None:
    """As one with GELU, such as Swin."""
    traced = torch.jit.trace(nn.GELU(), torch.zeros(2))
    torch.jit.save(traced, tmp_path / "a.pt", _extra_files={METADATA: "{}"})
    rewritten = with_records((tmp_path / "a.pt").read_bytes(), {METADATA: b'{"a": 1}'})
    (tmp_path / "b.pt").write_bytes(rewritten)
    extra_files = {METADATA: ""}
    module = torch.jit.load(tmp_path / "b.pt", _extra_files=extra_files)
    assert json.loads(extra_files[METADATA]) == {"a": 1}
    assert torch.equal(module(torch.ones(1)), nn.GELU()(torch.ones(1)))
    versions = [PyTorchFileReader(str(tmp_path / f"{name}.pt")).get_record(".data/version") for name in "ab"]
    assert versions[0] == versions[1]


@pytest.mark.slow
def test_both_files_are_the_same_wherever_the_package_lies(onnx_file: Path, tmp_path: Path) -> None:
    """Their bytes; names in a TorchScript file count from the start of the process, so two of them export."""
    here, there = Path(ssd.__file__).parents[1], tmp_path / "another place"
    shutil.copytree(here / "ssd", there / "ssd", ignore=shutil.ignore_patterns("__pycache__"))
    helpers = str(here / "tests/helpers")
    files = [tmp_path / "here.pt", tmp_path / "there.pt", tmp_path / "there.onnx"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", EXPORT, *map(str, written)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), helpers]), "PYTHONHASHSEED": seed},
        )
        for root, seed, written in ((here, "1", files[:1]), (there, "2", files[1:]))
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[2].read_bytes() == onnx_file.read_bytes()


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_no_tensor_is_pinned_to_the_device_of_the_export(torchscript_file: Path) -> None:
    assert "Device" not in str(torch.jit.load(torchscript_file).inlined_graph)


def test_a_size_frozen_by_the_trace_is_an_error(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Heads.level

    def with_a_size_as_a_number(self: Heads, level: int, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, logits = answer(self, level, x)
        return loc.reshape(len(x), -1, 4), logits

    monkeypatch.setattr(Heads, "level", with_a_size_as_a_number)
    with pytest.raises(torch.jit.TracerWarning):
        to_torchscript(detector, CLASS_NAMES)


def test_exporting_and_loading_warn_of_nothing(
    detector: Detector, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "quiet.pt"
    path.write_bytes(to_torchscript(detector, CLASS_NAMES))
    open_torchscript(path)
    assert not [warning for warning in recwarn if "jit" in str(warning.message)]
