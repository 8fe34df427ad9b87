"""`ssd export`, its files as detectors, and `ssd evaluate` of any of them on any annotated images."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_detector import assert_same_detections, scenes
from voc_folder import annotation_xml, encode, object_xml, picture, write_image, write_lists
from waiting import Ended

from ssd.errors import UserError
from ssd.inference.detector_file import DetectorFile, open_detector
from ssd.loading.tensor_file import TensorFile
from ssd.postprocess import PostProcessSettings
from ssd.source.glyphs import GLYPHS

Run = Callable[..., Ended]


SETTINGS = PostProcessSettings(0.3, 0.45, max_detections=100)


@pytest.fixture(scope="module")
def exported(glyph_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cli.main import main

    out = tmp_path_factory.mktemp("exported")
    with pytest.raises(SystemExit) as ended:
        main(["export", str(glyph_model), "--out", str(out), "--score-threshold", "0.3"])
    assert not ended.value.code
    return out


def exported_files(folder: Path) -> list[Path]:
    return [folder / "ssd.onnx", folder / "ssd.torchscript.pt"]


def test_a_model_and_its_exports_are_measured_on_a_tensor_file(
    run_ssd: Run, glyph_model: Path, exported: Path, shapes_file: TensorFile
) -> None:
    figures = {}
    for file in (glyph_model, *exported_files(exported)):
        ended = run_ssd("evaluate", file, "--data", shapes_file.path, "--resamples", 0, "--json")
        assert ended.code == 0, ended.stderr
        figures[file.name] = json.loads(ended.stdout)
    assert figures["ssd.onnx"]["num_images"] == 16
    assert figures["ssd.onnx"]["coco"]["map50"] == pytest.approx(
        figures["ssd.torchscript.pt"]["coco"]["map50"], abs=1e-4
    )
    assert set(figures["model.pt"]["per_class"][0]) == set(figures["ssd.onnx"]["per_class"][0])


def test_figures_are_printed_and_kept(
    run_ssd: Run, glyph_model: Path, shapes_file: TensorFile, tmp_path: Path
) -> None:
    ended = run_ssd("evaluate", glyph_model, "--data", shapes_file.path, "--resamples", 20, "--out", tmp_path)
    assert ended.code == 0, ended.stderr
    assert "coco_map50" in ended.stdout
    assert "F1" in ended.stdout
    kept = json.loads((tmp_path / "metrics.json").read_text())
    assert f"{kept['coco']['map50']:.4f} [" in ended.stdout
    assert (tmp_path / "detections.json").is_file()


def test_a_folder_is_read_in_its_own_format(run_ssd: Run, glyph_model: Path, tmp_path: Path) -> None:
    boxes = object_xml("star", (5, 5, 20, 20)), object_xml("dog", (1, 1, 9, 9))
    for seed, stem in enumerate("abc"):
        write_image(tmp_path, stem, encode(picture(seed)), annotation_xml(*boxes))
    write_lists(tmp_path, {"train": ["a"], "val": ["b", "c"]})
    counts = {}
    data = ("--data", tmp_path, "--resamples", 0, "--json", "--split")
    for split in ("all", "val"):
        ended = run_ssd("evaluate", glyph_model, *data, split)
        assert ended.code == 0, ended.stderr
        counts[split] = json.loads(ended.stdout)["num_images"]
        assert "read as Pascal VOC XML: " in ended.stderr
        assert "class 'dog'" in ended.stderr
    assert counts == {"all": 3, "val": 2}
    assert "it has train, val" in run_ssd("evaluate", glyph_model, *data, "test").stderr


def test_a_folder_without_the_model_s_classes_is_refused(
    run_ssd: Run, glyph_model: Path, tmp_path: Path
) -> None:
    write_image(tmp_path, "a", encode(picture(0)), annotation_xml(object_xml("dog", (1, 1, 9, 9))))
    write_lists(tmp_path, {"train": ["a"]})
    ended = run_ssd("evaluate", glyph_model, "--data", tmp_path)
    assert ended.code == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "no object of the model's classes (ball, bars, " in ended.stderr


def test_data_that_is_not_there_is_named(run_ssd: Run, exported: Path, tmp_path: Path) -> None:
    ended = run_ssd("evaluate", exported / "ssd.onnx", "--data", tmp_path / "none")
    assert ended.code == 2
    assert ended.stderr.startswith("--data: ")


def test_an_exported_file_is_not_exported_again(run_ssd: Run, exported: Path, tmp_path: Path) -> None:
    ended = run_ssd("export", exported / "ssd.onnx", "--out", tmp_path)
    assert (ended.code, list(tmp_path.iterdir())) == (2, [])
    assert "export the model.pt that it was made of" in ended.stderr


@pytest.fixture(scope="module")
def detectors(glyph_model: Path, exported: Path) -> list[DetectorFile]:
    return [open_detector(file, settings=SETTINGS) for file in (glyph_model, *exported_files(exported))]


def test_the_content_says_which_kind_a_file_is(detectors: list[DetectorFile]) -> None:
    assert [detector.kind for detector in detectors] == ["model.pt", "onnx", "torchscript"]
    assert all(detector.class_names == list(GLYPHS) for detector in detectors)
    assert all(detector.metadata == detectors[0].metadata for detector in detectors)


def test_all_kinds_detect_the_same(detectors: list[DetectorFile]) -> None:
    images = scenes(2, 90, 120)
    expected = detectors[0].run(images)
    assert expected[3].min() > 0
    for detector in detectors[1:]:
        assert_same_detections(detector.run(images), expected)


def test_pictures_get_the_same_predictions_from_each_kind(
    run_ssd: Run, glyph_model: Path, exported: Path, tmp_path: Path
) -> None:
    for seed in range(3):
        picture(seed, 90, 60 + 10 * (seed % 2)).save(tmp_path / f"{seed}.png")
    found = []
    for file in (glyph_model, *exported_files(exported)):
        ended = run_ssd("predict", file, tmp_path, "--json", "--score", 0.4)
        assert ended.code == 0, ended.stderr
        found.append(
            [
                sorted((row["label"], row["score"], *row["box"]) for row in image["detections"])
                for image in json.loads(ended.stdout)["images"]
            ]
        )
    assert all(found[0])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert one == [pytest.approx(row, abs=1e-3) for row in two]
    lower = run_ssd("predict", exported / "ssd.onnx", tmp_path, "--json", "--score", 0.2)
    assert "ssd.onnx drops scores below 0.3: lower thresholds change nothing" in lower.stderr


def test_images_of_several_sizes_keep_their_order(detectors: list[DetectorFile]) -> None:
    images = [scenes(1, 64, 80, seed=0)[0], scenes(1, 40, 50)[0], scenes(1, 64, 80, seed=1)[0]]
    together = detectors[0].detect(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = detectors[0].detect([image])
        assert found.boxes.allclose(alone.boxes, atol=1e-3)
        assert found.labels.tolist() == alone.labels.tolist()
    assert detectors[0].detect([]) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", b"PK text", "neither a model.pt of this project nor an exported detector"),
        ("a.onnx", b"text", "does not load as a detector"),
        ("a.jpg", b"\xff\xd8", "neither a model.pt"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        open_detector(path)
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_a_damaged_model_are_named(tmp_path: Path, glyph_model: Path) -> None:
    with pytest.raises(UserError, match="gone.pt: no such file"):
        open_detector(tmp_path / "gone.pt")
    content = bytearray(glyph_model.read_bytes())
    content[5000] ^= 1
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        open_detector(tmp_path / "model.pt")
