"""The certificate, the golden image and the seal of exported files: what each change of a file is told as."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from small_detector import CLASS_NAMES, scenes
from torch import nn

from ssd.detector import Detector, Outputs, describe
from ssd.errors import UserError
from ssd.export import verify_onnx
from ssd.export.certificate import (
    GOLDEN_SIDE,
    TORCHSCRIPT_SEAL,
    certify,
    make_certificate,
    make_golden,
    make_origin,
    torchscript_run,
    without_origin,
)
from ssd.export.noise import noisy_outputs
from ssd.export.onnx import open_onnx
from ssd.export.torchscript import open_torchscript
from ssd.export.verify_onnx import (
    GoldenResult,
    Report,
    compare,
    golden_image,
    is_sealed,
    lines,
    parsed,
    verify,
)

IMAGES = [torch.zeros(3, 30, 40, dtype=torch.uint8), scenes(1, 150, 200)[0]]


@pytest.fixture(scope="module")
def statements(detector: Detector) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    coco = {"map": 0.123456, "map_interval": [0.1, 0.2], "map50": None}
    metrics = {"coco": coco, "operating_point": {"score": 0.31}, "num_images": 7}
    certificate = make_certificate(detector, "a" * 64, {"train": "b" * 64}, None, metrics)
    return certificate, make_origin("c" * 40, False), make_golden(detector, IMAGES)


@pytest.fixture(scope="module", params=["onnx_file", "torchscript_file"])
def certified(
    request: pytest.FixtureRequest, statements: tuple[Any, Any, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The small detector's file of each kind, with its certificate."""
    file: Path = request.getfixturevalue(request.param)
    path = tmp_path_factory.mktemp("certified") / file.name
    path.write_bytes(file.read_bytes())
    certify(path, *statements)
    return path


def report_on(path: Path) -> Report:
    if path.suffix == ".onnx":
        return verify_onnx.verify_onnx(path)
    return verify(
        path.read_bytes(), TORCHSCRIPT_SEAL, path, lambda: (torchscript_run(path), open_torchscript(path)[1])
    )


def test_a_file_as_it_was_written_gives_the_same_bits(certified: Path) -> None:
    report = report_on(certified)
    assert report.problem == ""
    assert report.sealed
    assert report.golden is not None and report.golden.identical
    assert report.golden.num_detections > 5
    assert max(report.golden.score_difference, report.golden.box_difference) < 1e-5
    assert "this machine gives the same detections" in lines(report)[-1]


def test_it_is_the_same_detector_with_more_to_say(certified: Path, detector: Detector) -> None:
    opened = open_onnx if certified.suffix == ".onnx" else open_torchscript
    _, metadata = opened(certified)
    own = describe(detector, CLASS_NAMES)
    assert {key: metadata[key] for key in own} == own
    assert metadata["certificate"]["data_sha256"] == {"train": "b" * 64}
    assert metadata["certificate"]["params_sha256"] is None
    assert metadata["certificate"]["metrics"]["coco_map"] == 0.1235
    assert metadata["certificate"]["network"]["num_priors"] == len(detector.model.priors)
    assert metadata["origin"]["commit"] == "c" * 40
    if certified.suffix == ".onnx":
        onnx.checker.check_model(certified)


def test_the_commit_is_all_that_another_commit_changes(
    certified: Path, statements: tuple[Any, Any, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fixture = "onnx_file" if certified.suffix == ".onnx" else "torchscript_file"
    files = {}
    for name, commit in (("same", "c" * 40), ("other", "d" * 40)):
        files[name] = tmp_path / f"{name}{certified.suffix}"
        files[name].write_bytes(request.getfixturevalue(fixture).read_bytes())
        certify(files[name], statements[0], make_origin(commit, False), statements[2])
    assert files["same"].read_bytes() == certified.read_bytes()
    assert files["other"].read_bytes() != certified.read_bytes()
    assert without_origin(files["other"]) == without_origin(certified)
    certify(files["other"], {**statements[0], "params_sha256": "e"}, statements[1], statements[2])
    assert without_origin(files["other"]) != without_origin(certified)


def test_every_changed_byte_breaks_the_seal(certified: Path) -> None:
    content = certified.read_bytes()
    mark = verify_onnx.ONNX_SEAL if certified.suffix == ".onnx" else TORCHSCRIPT_SEAL
    assert is_sealed(content, mark)
    for place in [*np.random.default_rng(0).integers(0, len(content), 20).tolist(), len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        assert not is_sealed(bytes(damaged), mark), place


def test_one_changed_weight_is_told_where_no_detection_moves(
    onnx_file: Path, statements: tuple[Any, Any, Any], tmp_path: Path
) -> None:
    path = tmp_path / "ssd.onnx"
    path.write_bytes(onnx_file.read_bytes())
    certify(path, *statements)
    weights = max(onnx.load(path).graph.initializer, key=lambda item: len(item.raw_data)).raw_data
    content = bytearray(path.read_bytes())
    content[content.index(weights) + len(weights) // 2 // 4 * 4] ^= 1  # the last bit of a mantissa
    path.write_bytes(content)
    report = report_on(path)
    assert not report.sealed
    assert "changed since it was exported" in report.problem
    assert report.golden is not None and report.golden.problem == ""


def test_a_changed_letter_of_the_metadata_is_told(certified: Path, tmp_path: Path) -> None:
    path = tmp_path / certified.name
    path.write_bytes(certified.read_bytes().replace(b"c" * 40, b"c" * 39 + b"d"))
    report = report_on(path)
    assert "changed since it was exported" in report.problem


def test_a_file_cut_short_or_without_a_certificate_is_not_opened(
    certified: Path, onnx_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / certified.name
    path.write_bytes(certified.read_bytes()[:-1000])
    for file in (path, onnx_file):
        report = report_on(file)
        assert report.problem == "no seal at its end: cut short, or exported without a certificate"
        assert report.golden is None


def test_a_property_of_another_program_need_not_be_json() -> None:
    properties = {"author": "a person", "class_names": '["cat"]', "format": "ssd-detector-1"}
    assert parsed(properties) == {**properties, "class_names": ["cat"]}


def compared(golden: dict[str, Any], *outputs: object) -> GoldenResult:
    return compare(golden, lambda images: [np.asarray(array) for array in outputs], 0.3, 3)


def test_the_comparison_allows_rounding_and_nothing_else() -> None:
    image = {"height": 2, "width": 100, "pixels": "AAAA" * 200, "outputs_sha256": ""}
    box, other = [0.0, 0.0, 50.0, 2.0], [10.0, 0.0, 90.0, 2.0]
    golden = {**image, "boxes": [box, other], "scores": [0.9, 0.8], "labels": [1, 2]}
    none = [0.0] * 4

    def found(boxes: list[list[float]], scores: list[float], labels: list[int], number: int) -> GoldenResult:
        return compared(golden, *(np.float32([rows]) for rows in (boxes, scores)), [labels], [number])

    same = found([box, other, none], [0.9, 0.8, 0], [1, 2, 0], 2)
    assert (same.problem, same.score_difference, same.identical) == ("", 0, False)
    near = found([[0.05, 0, 50, 2], other, none], [0.9004, 0.8, 0], [1, 2, 0], 2)
    assert near.problem == ""
    assert near.box_difference == pytest.approx(0.0005, rel=1e-3)
    assert near.score_difference == pytest.approx(0.0004, rel=1e-3)
    assert "misses 1, and has 1 others" in found([box, other, none], [0.9, 0.8, 0], [1, 1, 0], 2).problem
    assert (
        "misses 1, and has 1 others"
        in found([box, [11, 0, 90, 2], none], [0.9, 0.8, 0], [1, 2, 0], 2).problem
    )
    assert "misses 1, and has 0 others" in found([box, none, none], [0.9, 0, 0], [1, 0, 0], 1).problem
    at_the_threshold = found([box, other, other], [0.9, 0.8, 0.3005], [1, 2, 1], 3)
    assert at_the_threshold.problem == ""
    golden["unsteady"] = 1
    exchanged = found([box, [11, 0, 90, 2], none], [0.9, 0.8, 0], [1, 2, 0], 2)
    assert (exchanged.num_missed, exchanged.num_others, exchanged.problem) == (1, 1, "")
    assert "misses 2, and has 0 others" in found([none] * 3, [0, 0, 0], [0, 0, 0], 0).problem


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((2, 0, 0), "this machine gives the same detections"),
        ((2, 1, 2), "this machine gives the same detections, but for what rounding decides"),
        ((2, 2, 0), "its golden image proves no more: rounding decides all detections in it"),
        ((0, 0, 1), "its golden image proves no more: rounding decides all detections in it"),
        ((0, 0, 0), "in its golden image nothing is detected, here as there"),
    ],
)
def test_the_verdict_claims_no_more_than_was_found(counts: tuple[int, int, int], said: str) -> None:
    """The counts are of the golden image: its detections, those of them that are missed, and others."""
    golden = GoldenResult(*counts, False, 0.0, 0.0, "")
    assert lines(Report(Path("a.onnx"), True, golden, {}, ""))[-1].endswith(f"as it was written; {said}")


def test_the_golden_image_is_small_and_has_the_detector_s_own_detections(detector: Detector) -> None:
    golden = make_golden(detector, IMAGES[1:])
    image = golden_image(golden)
    assert image.shape == (1, 3, 96, GOLDEN_SIDE)
    with torch.inference_mode():
        boxes, _, _, (number,) = detector(torch.from_numpy(image.copy()))
    assert boxes[0, :number].tolist() == golden["boxes"]


def test_of_several_images_the_golden_one_shows_most(detector: Detector) -> None:
    class Counting:
        """As many detections as the image is wide."""

        model, postprocessor = nn.Identity(), detector.postprocessor

        def __call__(self, images: torch.Tensor) -> Outputs:
            wide = images.shape[3]
            return torch.zeros(1, 50, 4), torch.zeros(1, 50), torch.ones(1, 50).long(), torch.tensor([wide])

    images = [torch.zeros(3, 9, width, dtype=torch.uint8) for width in (20, 40, 30)]
    assert make_golden(cast(Detector, Counting()), images)["width"] == 40


def test_what_noise_changes_in_the_golden_image_may_change_by_rounding(detector: Detector) -> None:
    """An SSD's detections are steady. Those of this one jump with the network's input."""
    assert make_golden(detector, IMAGES[1:])["unsteady"] == 0

    class Jumping:
        """The second of two boxes is elsewhere with noise."""

        model, postprocessor = nn.Identity(), detector.postprocessor

        def __call__(self, images: torch.Tensor) -> Outputs:
            moved = 9.0 * (self.model(images.float()) != images).any()
            boxes = torch.tensor([[[0.0, 0.0, 5.0, 5.0], [1.0, 1.0, 8.0, 8.0]]]) + moved * torch.eye(2)[1:].T
            return boxes, torch.tensor([[0.9, 0.8]]), torch.ones(1, 2).long(), torch.tensor([2])

    assert make_golden(cast(Detector, Jumping()), IMAGES[1:])["unsteady"] == 1


@torch.inference_mode()
def test_a_detector_is_as_it_was_while_its_noisy_outputs_are_looked_at(detector: Detector) -> None:
    images = scenes(1, 60, 80)
    expected = detector(images)
    noisy = iter(noisy_outputs(detector, images))
    assert not torch.equal(next(noisy)[1], expected[1])
    assert torch.equal(detector(images)[1], expected[1])
    assert not torch.equal(next(noisy)[1], expected[1])


def test_an_operator_that_onnx_runtime_does_not_have_is_told(
    statements: tuple[Any, Any, Any], tmp_path: Path
) -> None:
    maps, rois = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xr")
    images = onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, None)
    features = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node("RoiAlign", ["x", "r", "i"], ["y"])
    graph = onnx.helper.make_graph([node], "new", [maps, rois, images], [features])
    path = tmp_path / "ssd.onnx"
    opset = [onnx.helper.make_opsetid("", 22)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    with pytest.raises(UserError, match=r"ssd\.onnx: .* RoiAlign\(22\).*; choose a lower opset"):
        certify(path, *statements)


ALONE = """
import runpy, sys
for name in ("torch", "ssd", "onnx", "PIL"):
    sys.modules[name] = None  # an import of it fails
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("certified", ["onnx_file"], indirect=True)
def test_the_checking_file_needs_numpy_and_onnxruntime_alone(certified: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", ALONE, verify_onnx.__file__, str(certified), "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["golden"]["identical"]
