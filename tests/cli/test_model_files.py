"""`ssd export`, its files as detectors, and `ssd evaluate` of any of them on any annotated images."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_detector import assert_same_detections, scenes
from torch import Tensor, nn
from voc_folder import annotation_xml, encode, object_xml, picture, write_image, write_lists
from waiting import Ended

from cli.data import opened_data
from cli.export import say
from cli.predict import warn_of_unused
from ssd.detector import Detector
from ssd.errors import UserError
from ssd.export.compare import DisagreementError
from ssd.export.network import describe_network
from ssd.inference.detector_file import DetectorFile, open_detector
from ssd.inference.thresholds import choose_thresholds
from ssd.loading.tensor_file import TensorFile
from ssd.models.saved import load_model
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


def test_a_model_is_not_better_than_its_export_which_drops_low_scores(
    run_ssd: Run, glyph_model: Path, exported: Path, shapes_file: TensorFile
) -> None:
    options = ("--data", shapes_file.path, "--resamples", 20, "--gate", "--json")
    ended = run_ssd("compare", exported / "ssd.onnx", glyph_model, *options)
    assert ended.code == 1, ended.stderr
    result = json.loads(ended.stdout)
    assert result["verdict"] == "none"
    assert result["map50"]["a"] > 0
    assert result["map"]["difference"] == pytest.approx(0, abs=1e-4)
    assert "compared are scores above 0.3, at most 100 detections per image" in ended.stderr


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


def test_a_split_is_one_of_the_pipeline_s_files(
    shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        Path(f"data/tensors/{name}").mkdir(parents=True)
        Path(f"data/tensors/{name}/00000-of-00001.safetensors").symlink_to(shapes_file.path)
    for split, stem in ((None, "test"), ("train", "train"), ("test", "test")):
        with opened_data(None, split, GLYPHS) as file:
            assert str(file.path) == f"data/tensors/{stem}"
    with opened_data("data/tensors/train", "train", GLYPHS) as file:
        assert len(file) == len(shapes_file)
    several = r"^--data: data/tensors has a folder for each split; name one, as data/tensors/test$"
    with pytest.raises(UserError, match=several), opened_data("data/tensors", "test", GLYPHS):
        pass


def test_one_tensor_file_of_several_is_said_to_be_a_part(
    shapes_file: TensorFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "00000-of-00002.safetensors"
    part.symlink_to(shapes_file.path)
    with opened_data(str(part), None, GLYPHS) as file:
        assert len(file) == len(shapes_file)
    assert capsys.readouterr().err == f"{part}: one of 2 tensor files of a split; all of it is {tmp_path}\n"


@pytest.mark.parametrize(
    "data", [("--data", "data/test.safetensors", "--split", "train"), ("--split", "all")]
)
def test_a_split_that_a_tensor_file_is_not_is_refused(
    run_ssd: Run, glyph_model: Path, data: tuple[str, ...]
) -> None:
    ended = run_ssd("evaluate", glyph_model, *data)
    assert (ended.code, len(ended.stderr.splitlines())) == (2, 1)
    assert ended.stderr.startswith(f"--split {data[-1]}: ")


def test_data_that_is_not_there_is_named(run_ssd: Run, exported: Path, tmp_path: Path) -> None:
    ended = run_ssd("evaluate", exported / "ssd.onnx", "--data", tmp_path / "none")
    assert ended.code == 2
    assert ended.stderr.startswith("--data: ")


def test_an_exported_file_is_not_exported_again(run_ssd: Run, exported: Path, tmp_path: Path) -> None:
    ended = run_ssd("export", exported / "ssd.onnx", "--out", tmp_path)
    assert (ended.code, list(tmp_path.iterdir())) == (2, [])
    assert "export the model.pt that it was made of" in ended.stderr


def test_an_export_that_disagrees_is_a_failure_in_the_command_s_own_words(
    run_ssd: Run, glyph_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disagree(*arguments: object) -> None:
        raise DisagreementError("ssd.onnx disagrees with PyTorch", "raise export.tolerance")

    monkeypatch.setattr("ssd.export.onnx.to_onnx", lambda *arguments: b"an export takes seconds")
    monkeypatch.setattr("ssd.export.torchscript.to_torchscript", lambda *arguments: b"this too")
    monkeypatch.setattr("ssd.export.certificate.certify", lambda *arguments: None)
    monkeypatch.setattr("ssd.export.compare.compare_files", disagree)
    ended = run_ssd("export", glyph_model, "--out", tmp_path)
    assert (ended.code, list(tmp_path.iterdir())) == (1, [])
    assert ended.stderr == f"ssd.onnx disagrees with PyTorch; nothing is written to {tmp_path}\n"


def test_what_was_compared_is_told_in_the_command_s_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    same = {"bytes": 1, "largest_score_difference": 0, "largest_box_difference": 0, "latency_ms": 1}
    report = {"num_detections": 0, "num_images": 9, "pytorch": {"latency_ms": 1}, "ssd.onnx": same}
    say(report, ["ssd.onnx"], 0.5)
    printed = capsys.readouterr().out
    assert printed.startswith("compared 0 detections on 9 drawn pictures")
    assert printed.endswith("nothing scores above 0.5, so no box was compared; lower --score-threshold\n")


def test_every_kind_says_what_it_is(run_ssd: Run, glyph_model: Path, exported: Path) -> None:
    found = []
    for file in (glyph_model, *exported_files(exported)):
        ended = run_ssd("info", file, "--json")
        assert ended.code == 0, ended.stderr
        found.append(json.loads(ended.stdout))
    model, *files = found
    assert [about["kind"] for about in found] == ["model.pt", "onnx", "torchscript"]
    assert all(about["classes"] == list(GLYPHS) for about in found)
    assert all(about["network"] == model["network"] for about in files)
    assert model["network"]["map_sizes"] == [[8, 8], [4, 4], [2, 2], [1, 1]]
    assert all(about["certificate"]["model_sha256"] == model["sha256"] for about in files)
    assert all(about["certificate"]["metrics"] is None for about in files)
    said = run_ssd("info", exported / "ssd.onnx").stdout
    assert "  metrics              not known\n" in said
    assert "  num_priors " in said


def test_operations_are_those_of_the_convolutions(glyph_model: Path) -> None:
    """A convolution multiplies each weight once for each place that it is at."""
    model, _ = load_model(glyph_model)
    expected = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal expected
        assert isinstance(layer, nn.Conv2d)
        expected += layer.weight.numel() * output.shape[2] * output.shape[3]

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    about = describe_network(Detector(model, SETTINGS))
    # Those of the heads run as one function for both.
    for loc, conf, (height, width) in zip(
        model.heads.loc, model.heads.conf, model.config.map_sizes(), strict=True
    ):
        assert isinstance(loc, nn.Conv2d) and isinstance(conf, nn.Conv2d)
        expected += (loc.weight.numel() + conf.weight.numel()) * height * width
    assert about["num_macs"] == expected > 0
    assert about["num_parameters"] == sum(len(x.flatten()) for x in model.parameters())


def test_what_was_exported_is_verified_and_what_was_changed_is_not(
    run_ssd: Run, glyph_model: Path, exported: Path, tmp_path: Path
) -> None:
    for file in (glyph_model, *exported_files(exported)):
        ended = run_ssd("verify", file)
        assert ended.code == 0, ended.stdout + ended.stderr
        assert ": as it was written; " in ended.stdout
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        changed = tmp_path / file.name
        changed.write_bytes(content)
        ended = run_ssd("verify", changed, "--json")
        assert ended.code == 1
        found = json.loads(ended.stdout)
        assert (found["same"], found["sealed"]) == (False, False)
        assert "SHA-256" in found["problem"]
    assert run_ssd("verify", tmp_path / "gone.onnx").code == 2


def test_times_are_split_and_by_setting(run_ssd: Run, glyph_model: Path, exported: Path) -> None:
    few = ("--rounds", 2, "--batch", 1, "--batch", 2, "--json")
    found = {}
    for file in (glyph_model, *exported_files(exported)):
        ended = run_ssd("bench", file, *few)
        assert ended.code == 0, ended.stderr
        found[file.name] = json.loads(ended.stdout)["settings"]
        assert [row["batch"] for row in found[file.name]] == [1, 2]
    assert "postprocessing_ms" in found["model.pt"][0]
    assert "postprocessing_ms" not in found["ssd.onnx"][0]
    for row in found["model.pt"]:
        assert 0 < row["total_ms"]["p50"] <= row["total_ms"]["p95"]
        assert row["images_per_s"] == pytest.approx(1000 * row["batch"] / row["total_ms"]["p50"])


def test_times_of_a_folder_s_pictures(run_ssd: Run, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode(picture(0)))
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "c.png").write_bytes(encode(picture(1, 50, 60), "PNG"))
    ended = run_ssd("bench", exported / "ssd.onnx", "--images", tmp_path, "--rounds", 1, "--batch", 3)
    assert ended.code == 0, ended.stderr
    assert "b.jpg: left out: " in ended.stderr
    assert "network includes post-processing" in ended.stderr
    (tmp_path / "empty").mkdir()
    assert run_ssd("bench", exported / "ssd.onnx", "--images", tmp_path / "empty").code == 2


@pytest.fixture(scope="module")
def detectors(glyph_model: Path, exported: Path) -> list[DetectorFile]:
    return [open_detector(file, settings=SETTINGS) for file in (glyph_model, *exported_files(exported))]


def test_the_content_says_which_kind_a_file_is(detectors: list[DetectorFile]) -> None:
    assert [detector.kind for detector in detectors] == ["model.pt", "onnx", "torchscript"]
    assert all(detector.class_names == list(GLYPHS) for detector in detectors)
    own = detectors[0].metadata.items()
    assert all(all(detector.metadata[key] == value for key, value in own) for detector in detectors)


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


def test_a_zip_file_with_a_damaged_directory_is_named(
    run_ssd: Run, glyph_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(glyph_model.read_bytes().replace(b"PK\1\2", b"PK\1\3"))
    (tmp_path / "a.jpg").write_bytes(encode(picture()))
    for words in (("info", path), ("bench", path), ("predict", path, tmp_path / "a.jpg")):
        ended = run_ssd(*words)
        assert (ended.code, len(ended.stderr.splitlines())) == (2, 1)
        assert ended.stderr.startswith(f"{path}: damaged (")
    assert run_ssd("verify", path).code == 1


def test_a_file_that_is_no_detector_is_not_timed(run_ssd: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"text")
    ended = run_ssd("bench", tmp_path / "bad.onnx")
    assert (ended.code, len(ended.stderr.splitlines())) == (2, 1)
    assert "bad.onnx: does not load as a detector" in ended.stderr


def test_a_threshold_equal_to_that_of_the_file_is_no_lower_one(capsys: pytest.CaptureFixture[str]) -> None:
    # float32 has 0.7 below, and 0.3 above the number of Python.
    for score in (0.3, 0.7):
        metadata = {"class_names": ["a"], "score_threshold": score}
        detector = DetectorFile(Path("ssd.onnx"), "onnx", lambda images: (images,) * 4, metadata)
        warn_of_unused(detector, choose_thresholds(metadata, score, []), "cpu")
        assert capsys.readouterr().err == ""


def test_a_missing_file_and_a_damaged_model_are_named(tmp_path: Path, glyph_model: Path) -> None:
    with pytest.raises(UserError, match="gone.pt: no such file"):
        open_detector(tmp_path / "gone.pt")
    content = bytearray(glyph_model.read_bytes())
    content[5000] ^= 1
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        open_detector(tmp_path / "model.pt")
