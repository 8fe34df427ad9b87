"""The ONNX file: standard operators, free sizes, and in ONNX Runtime the same detections as the detector."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from small_detector import CLASS_NAMES, SETTINGS, SIZES, assert_same_detections, build_model, scenes

from ssd.detector import IMAGES, Detector
from ssd.export.onnx import open_onnx, to_onnx


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_images", [1, 3])
@torch.inference_mode()
def test_it_equals_the_detector(
    onnx_file: Path, detector: Detector, size: tuple[int, int], num_images: int
) -> None:
    run, _ = open_onnx(onnx_file)
    images = scenes(num_images, *size)
    assert_same_detections(run(images), detector(images))


def test_its_batches_equal_its_single_images(onnx_file: Path) -> None:
    run, _ = open_onnx(onnx_file)
    images = scenes(3, 80, 50)
    single = [run(image[None]) for image in images]
    assert_same_detections(run(images), tuple(torch.cat(column) for column in zip(*single, strict=True)))


def test_it_is_valid_and_of_standard_operators(onnx_file: Path) -> None:
    onnx.checker.check_model(onnx_file, full_check=True)
    model = onnx.load(onnx_file)
    assert {node.domain for node in model.graph.node} == {""}
    assert {item.domain for item in model.opset_import} == {""}
    assert not model.functions
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("NonMaxSuppression") == operators.count("Resize") == 1


def test_it_is_one_file(onnx_file: Path) -> None:
    assert [path.name for path in onnx_file.parent.iterdir()] == ["ssd.onnx"]
    assert not any(item.external_data for item in onnx.load(onnx_file).graph.initializer)


def test_its_inputs_and_outputs_are_named_typed_and_free_in_size(onnx_file: Path) -> None:
    graph = onnx.load(onnx_file).graph
    types = {
        onnx.TensorProto.UINT8: "uint8",
        onnx.TensorProto.FLOAT: "float",
        onnx.TensorProto.INT64: "int64",
    }
    found = {
        value.name: (
            types[value.type.tensor_type.elem_type],
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in [*graph.input, *graph.output]
    }
    assert found == {
        "images": ("uint8", ["batch", 3, "height", "width"]),
        "boxes": ("float", ["batch", 45, 4]),
        "scores": ("float", ["batch", 45]),
        "labels": ("int64", ["batch", 45]),
        "num_detections": ("int64", ["batch"]),
    }


def test_it_carries_names_size_and_thresholds(onnx_file: Path) -> None:
    properties = {item.key: item.value for item in onnx.load(onnx_file).metadata_props}
    assert properties == {
        "format": "ssd-detector-1",
        "images": IMAGES,
        "class_names": '["zebra", "caf\\u00e9", "a b"]',
        "input_size": "64",
        "score_threshold": "0.5",
        "nms_iou": "0.45",
        "max_detections": "45",
    }
    assert open_onnx(onnx_file)[1]["class_names"] == CLASS_NAMES


def test_it_says_nothing_of_the_machine_that_made_it(onnx_file: Path) -> None:
    content = onnx_file.read_bytes()
    assert b"predict.py" not in content
    assert str(Path.cwd()).encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize("opset", [23])
@torch.inference_mode()
def test_every_opset_says_the_same(detector: Detector, tmp_path: Path, opset: int) -> None:
    # High above most scores, so that some images have no detections.
    settings = replace(SETTINGS, score_threshold=0.95, max_detections=400)
    other = Detector(build_model(seed=1), settings)
    path = tmp_path / "ssd.onnx"
    path.write_bytes(to_onnx(other, CLASS_NAMES, opset))
    onnx.checker.check_model(path, full_check=True)
    assert [item.version for item in onnx.load(path).opset_import] == [opset]
    run, _ = open_onnx(path)
    numbers: list[int] = []
    for size in SIZES:
        expected = other(scenes(3, *size))
        assert_same_detections(run(scenes(3, *size)), expected)
        numbers += expected[3].tolist()
    assert min(numbers) == 0 < max(numbers)
