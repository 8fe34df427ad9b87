"""A Faster R-CNN through the stage export and the commands: its files are used as those of an SSD."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from default_params import default_text
from PIL import Image
from small_detector import SIDE, SIZES, assert_same_detections, build_faster_rcnn, scenes
from voc_folder import encode
from waiting import Ended

from ssd.detector import Detector, Outputs
from ssd.errors import UserError
from ssd.export import compare
from ssd.export.match_detections import Agreement
from ssd.export.onnx import to_onnx
from ssd.export.pyfunc_model import ServedDetector
from ssd.export.verify_onnx import verify_onnx
from ssd.inference.detector_file import DetectorFile, open_detector
from ssd.loading.tensor_file import TensorFile
from ssd.models.saved import save_model
from ssd.postprocess import PostProcessSettings
from ssd.serving.engine import Engine
from ssd.source.glyphs import GLYPHS
from stages import export

Run = Callable[..., Ended]

SCORE = 0.1


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(build_faster_rcnn(len(GLYPHS)), PostProcessSettings(SCORE, 0.45, max_detections=100))


@pytest.fixture(scope="module")
def graph(detector: Detector) -> bytes:
    """What the stage and the command write as ONNX: made once, because it takes most of the time."""
    return to_onnx(detector, GLYPHS, 18)


@pytest.fixture(scope="module")
def workspace(
    detector: Detector, graph: bytes, shapes_file: TensorFile, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder in which the model has been exported."""
    root = tmp_path_factory.mktemp("faster-rcnn")
    (root / "data/tensors/test").mkdir(parents=True)
    shutil.copy(shapes_file.path, root / "data/tensors/test/00000-of-00001.safetensors")
    changes = {"export.num_images": 2, "export.score_threshold": SCORE, "tracking.enabled": False}
    (root / "params.yaml").write_text(default_text(**changes))
    model = detector.model
    save_model(root / "models/model.pt", model.state_dict(), model.config, GLYPHS, {})
    with pytest.MonkeyPatch.context() as own:
        own.chdir(root)
        own.setattr(export, "to_onnx", lambda *_: graph)
        export.main()
    return root


@pytest.fixture(scope="module")
def onnx_file(workspace: Path) -> Path:
    return workspace / "models/export/ssd.onnx"


@pytest.fixture(scope="module")
def torchscript_file(workspace: Path) -> Path:
    return workspace / "models/export/ssd.torchscript.pt"


@pytest.fixture(scope="module")
def files(onnx_file: Path, torchscript_file: Path) -> list[DetectorFile]:
    return [open_detector(onnx_file), open_detector(torchscript_file)]


@torch.inference_mode()
def test_both_files_detect_what_pytorch_does(detector: Detector, files: list[DetectorFile]) -> None:
    for number, (height, width) in enumerate(size for size in SIZES if size != (1, 1)):
        images = scenes(1 + number % 3, height, width)
        expected = detector(images)
        assert expected[3].min() > 20
        for file in files:
            assert_same_detections(file.run(images), expected)


def test_no_image_gives_empty_results(files: list[DetectorFile]) -> None:
    for file in files:
        found = file.run(scenes(1, 50, 60)[:0])
        assert [tuple(output.shape) for output in found] == [(0, 100, 4), (0, 100), (0, 100), (0,)]


def test_the_onnx_file_is_valid_and_of_standard_operators(onnx_file: Path) -> None:
    onnx.checker.check_model(onnx_file, full_check=True)
    graph = onnx.load(onnx_file).graph
    assert {node.domain for node in graph.node} == {""}
    operators = [node.op_type for node in graph.node]
    assert operators.count("NonMaxSuppression") == 5 + 1
    assert operators.count("RoiAlign") == 4
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    ]
    assert shapes == [
        ["batch", 3, "height", "width"],
        ["batch", 100, 4],
        ["batch", 100],
        ["batch", 100],
        ["batch"],
    ]


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_the_torchscript_file_needs_torch_alone_on_any_device(torchscript_file: Path) -> None:
    graph = str(torch.jit.load(torchscript_file).inlined_graph)
    assert "aten::embedding_bag" in graph
    assert "torchvision::" not in graph
    assert 'value="cpu"' not in graph


def test_the_stage_compared_both_with_pytorch(workspace: Path, onnx_file: Path) -> None:
    report = json.loads((workspace / "reports/export.json").read_text())
    for name in ("ssd.onnx", "ssd.torchscript.pt"):
        assert report[name]["num_matched"] > 0.9 * report["num_detections"] > 500
        assert report[name]["largest_score_difference"] < 1e-4
    verified = verify_onnx(onnx_file)
    assert verified.problem == ""
    assert verified.golden is not None and verified.golden.identical
    assert verified.golden.num_detections > 20
    assert verified.metadata["golden"]["unsteady"] < 5


@torch.inference_mode()
def test_a_disagreement_on_one_colour_is_rounding_unless_next_to_nothing_agrees(
    detector: Detector, torchscript_file: Path
) -> None:
    image = torch.full((1, 3, SIDE + 1, SIDE), 127, dtype=torch.uint8)
    case = compare._reference(detector, image)
    other = scenes(1, SIDE + 1, SIDE)

    def agreements(run: Callable[[torch.Tensor], Outputs]) -> list[Agreement]:
        return list(compare._compare_case(torchscript_file, run, case, detector, 1e-3))

    boxes, scores, labels, numbers = case.outputs
    most = int(numbers) - 1
    boxes, scores, labels = (torch.cat([x[:, 1:], 0 * x[:, :1]], dim=1) for x in (boxes, scores, labels))
    one_less = boxes, scores, labels, numbers - 1
    (agreement,) = agreements(lambda images: one_less)
    assert agreement.problem == ""
    assert agreement.num_matched == most
    with pytest.raises(UserError, match="disagrees with PyTorch"):
        agreements(lambda images: detector(other))


def test_the_commands_take_its_files(
    run_ssd: Run, workspace: Path, shapes_file: TensorFile, onnx_file: Path, torchscript_file: Path
) -> None:
    model = workspace / "models/model.pt"
    Image.fromarray(scenes(1, 90, 60)[0].permute(1, 2, 0).numpy()).save(workspace / "a.png")
    networks, predicted = [], []
    for file in (model, onnx_file, torchscript_file):
        assert run_ssd("verify", file).code == 0
        about = json.loads(run_ssd("info", file, "--json").stdout)
        networks.append(about["network"])
        ended = run_ssd("predict", file, workspace / "a.png", "--score", 0.2, "--json")
        (image,) = json.loads(ended.stdout)["images"]
        rows = [(found["label"], found["score"], *found["box"]) for found in image["detections"]]
        predicted.append(sorted(rows))
    assert networks[0]["family"] == "faster_rcnn"
    assert networks[0]["map_sizes"] == [[16, 16], [8, 8], [4, 4], [2, 2], [1, 1]]
    assert networks[1] == networks[2] == networks[0]
    assert len(predicted[0]) > 5
    for other in predicted[1:]:
        assert other == [pytest.approx(row, abs=1e-3) for row in predicted[0]]
    ended = run_ssd(
        "compare", onnx_file, torchscript_file, "--data", shapes_file.path, "--resamples", 1, "--json"
    )
    assert ended.code == 0, ended.stderr
    assert json.loads(ended.stdout)["map50"]["difference"] == pytest.approx(0, abs=1e-4)


def test_its_model_is_exported_and_measured_by_commands(
    run_ssd: Run,
    workspace: Path,
    graph: bytes,
    shapes_file: TensorFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ssd.export.onnx.to_onnx", lambda *_: graph)
    monkeypatch.setattr("cli.pictures.NUM_SCENES", 1)
    model = workspace / "models/model.pt"
    ended = run_ssd("export", model, "--out", tmp_path, "--score-threshold", SCORE)
    assert ended.code == 0, ended.stderr
    figures = []
    for file in (model, tmp_path / "ssd.onnx"):
        ended = run_ssd("evaluate", file, "--data", shapes_file.path, "--resamples", 0, "--json")
        assert ended.code == 0, ended.stderr
        figures.append(json.loads(ended.stdout))
    assert [figure["num_images"] for figure in figures] == [len(shapes_file)] * 2
    whole, exported = (figure["coco"]["map50"] for figure in figures)
    assert 0 < exported < whole, "which has scores below the threshold, too"


def test_an_operator_set_without_its_operators_is_refused_before_the_export(
    run_ssd: Run, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports: list[int] = []
    monkeypatch.setattr("ssd.export.onnx.to_onnx", lambda *given: exports.append(given[-1]))
    ended = run_ssd("export", workspace / "models/model.pt", "--out", tmp_path / "out", "--opset", 22)
    assert ended.code == 2
    assert ended.stderr == (
        "--opset: found 22; allowed: 18-21 with model.family faster_rcnn: "
        "ONNX Runtime has no newer RoiAlign\n"
    )
    assert not exports
    assert not (tmp_path / "out").exists()


@torch.inference_mode()
def test_servers_answer_with_its_detections(
    detector: Detector, onnx_file: Path, files: list[DetectorFile]
) -> None:
    (image,) = scenes(1, SIDE + 20, SIDE)
    boxes, scores, _, num_detections = (output[0] for output in detector(image[None]))
    engine = Engine("ssd.onnx", files[0], 4, lambda number: None)
    try:
        found = engine.submit(image).result()
    finally:
        engine.close()
    served = ServedDetector()
    served.load_context(SimpleNamespace(artifacts={"onnx": str(onnx_file)}))
    png = encode(Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0))), "PNG")
    table = pd.DataFrame({"image": [base64.b64encode(png).decode()]})
    (answer,) = served.predict(None, table)["detections"]
    assert len(found.scores) == len(answer) == int(num_detections) > 20
    torch.testing.assert_close(found.scores, scores[: len(answer)], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.boxes[0], boxes[0], atol=1e-2, rtol=0)
    assert answer[0]["score"] == pytest.approx(float(scores[0]), abs=1e-5)
