"""The comparison of files: the right ones pass with a report, wrong ones are refused with a clear line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_detector import CLASS_NAMES, build_faster_rcnn, build_model, scenes

from ssd.detector import Detector, Outputs, describe
from ssd.errors import UserError
from ssd.export import compare
from ssd.export.compare import compare_files
from ssd.export.match_detections import Agreement
from ssd.export.torchscript import to_torchscript
from ssd.postprocess import PostProcessSettings

IMAGES = [scenes(1, 90, 60)[0], scenes(1, 40, 100, seed=1)[0]]


def test_the_files_of_a_detector_agree_with_it(
    detector: Detector, onnx_file: Path, torchscript_file: Path
) -> None:
    report = compare_files(detector, CLASS_NAMES, [onnx_file, torchscript_file], IMAGES, 1e-4)
    # Each image alone, both and a mirrored one in four shapes, three plain ones.
    assert report["num_images"] == 2 + 4 * 3 + 3
    assert report["num_detections"] > 200
    assert report["pytorch"]["latency_ms"] > 0
    for path in (onnx_file, torchscript_file):
        file = report[path.name]
        assert file["bytes"] == path.stat().st_size
        assert 0 <= file["largest_score_difference"] < 1e-5
        assert 0 <= file["largest_box_difference"] < 1e-5
        assert file["num_matched"] + file["num_borderline"] >= report["num_detections"]
        assert file["latency_ms"] > 0


def test_one_image_is_enough_and_batches_hold_several(
    detector: Detector, torchscript_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Size] = []

    def run(images: torch.Tensor) -> Outputs:
        seen.append(images.shape)
        boxes, scores, labels, numbers = detector(images if len(images) else scenes(1, 9, 9))
        n = len(images)
        return boxes[:n], scores[:n], labels[:n], numbers[:n]

    monkeypatch.setattr(compare, "open_torchscript", lambda path: (run, describe(detector, CLASS_NAMES)))
    compare_files(detector, CLASS_NAMES, [torchscript_file], IMAGES[:1], 1e-4)
    heights_and_widths = {tuple(shape[2:]) for shape in seen if shape[0] > 1}
    assert any(height > 2 * width for height, width in heights_and_widths)
    assert any(width > 2 * height for height, width in heights_and_widths)
    assert any(max(size) < 5 for size in heights_and_widths)
    assert (64, 64) in heights_and_widths
    assert 0 in {shape[0] for shape in seen}


def test_a_file_that_finds_something_on_no_image_is_refused(
    detector: Detector, torchscript_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(images: torch.Tensor) -> Outputs:
        outputs: Outputs = detector(images if len(images) else scenes(1, 9, 9))
        return outputs

    monkeypatch.setattr(compare, "open_torchscript", lambda path: (run, describe(detector, CLASS_NAMES)))
    with torch.inference_mode(), pytest.raises(UserError, match=r"in a batch of 0: outputs are .*\(1, 45"):
        compare_files(detector, CLASS_NAMES, [torchscript_file], IMAGES[:1], 1e-4)


def test_a_file_of_another_model_is_refused(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(to_torchscript(Detector(build_model(1), detector.postprocessor.settings), CLASS_NAMES))
    with pytest.raises(
        UserError, match=r"^other\.pt, image of 60x90 pixels in a batch of 1, disagrees .* 0\.\d"
    ):
        compare_files(detector, CLASS_NAMES, [path], IMAGES, 1e-3)


def test_a_file_of_other_class_names_is_refused(detector: Detector, onnx_file: Path) -> None:
    with pytest.raises(UserError, match=r"^ssd\.onnx: not the metadata of this model"):
        compare_files(detector, ["a", "b", "c"], [onnx_file], IMAGES, 1e-3)


@torch.inference_mode()
def test_rounding_excuses_what_a_second_stage_sees_of_one_colour_and_of_nothing_else() -> None:
    two_stages = Detector(build_faster_rcnn(), PostProcessSettings(0.1, max_detections=45))
    for image, excused in ((torch.full((3, 65, 64), 127, dtype=torch.uint8), True), (IMAGES[0], False)):
        (reference,) = compare._reference(two_stages, image[None]).references
        n = len(reference.found.labels)
        assert n > 20
        for num_matched, enough in ((n, True), (0, False)):
            found = Agreement(0.0, 0.0, num_matched, 0, "another score")
            explained = compare._explained_by_noise(found, two_stages, image, reference, 1e-3)
            assert explained == (excused and enough)


def swapped_sides(outputs: Outputs) -> Outputs:
    return (outputs[0].flip(-1), *outputs[1:])


def reversed_rows(outputs: Outputs) -> Outputs:
    boxes, scores, labels, num_detections = (x.clone() for x in outputs)
    for image, n in enumerate(num_detections.tolist()):
        for column in (boxes, scores, labels):
            column[image, :n] = column[image, :n].flip(0)
    return boxes, scores, labels, num_detections


def labels_from_zero(outputs: Outputs) -> Outputs:
    return outputs[0], outputs[1], (outputs[2] - 1).clamp(min=0), outputs[3]


def labels_too_high(outputs: Outputs) -> Outputs:
    return outputs[0], outputs[1], outputs[2] * 2, outputs[3]


def one_fewer(outputs: Outputs) -> Outputs:
    return *outputs[:3], (outputs[3] - 1).clamp(min=0)


def fewer_rows(outputs: Outputs) -> Outputs:
    return outputs[0][:, :-1], outputs[1][:, :-1], outputs[2][:, :-1], outputs[3]


def double_precision(outputs: Outputs) -> Outputs:
    return outputs[0].double(), *outputs[1:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swapped_sides, "disagrees with PyTorch: misses"),
        (reversed_rows, "not in descending order"),
        (labels_from_zero, r"labels are outside 1\.\.3"),
        (labels_too_high, r"labels are outside 1\.\.3"),
        (one_fewer, "rows past num_detections are not 0"),
        (fewer_rows, "outputs are"),
        (double_precision, "outputs are"),
    ],
)
def test_damaged_outputs_are_refused(
    detector: Detector,
    torchscript_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Outputs], Outputs],
    message: str,
) -> None:
    def opened(path: Path) -> tuple[Callable[[torch.Tensor], Outputs], dict[str, object]]:
        return lambda images: damage(detector(images)), describe(detector, CLASS_NAMES)

    monkeypatch.setattr(compare, "open_torchscript", opened)
    with torch.inference_mode(), pytest.raises(UserError, match=message) as caught:
        compare_files(detector, CLASS_NAMES, [torchscript_file], IMAGES, 1e-3)
    assert "\n" not in str(caught.value)
