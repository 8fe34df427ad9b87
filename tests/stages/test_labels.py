"""The command that draws annotated images before anything is trained."""

import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from waiting import Ended

from ssd.loading.tensor_file import TensorFile


def test_it_draws_training_images_as_preprocess_left_them(
    tmp_path: Path, run_stage: Callable[..., Ended], shapes_file: TensorFile
) -> None:
    (tmp_path / "data/tensors/train").mkdir(parents=True)
    shutil.copy(shapes_file.path, tmp_path / "data/tensors/train/00000-of-00001.safetensors")
    ended = run_stage("labels", **{"report.num_pictures": 2})
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout == f"drawn: reports/labels.png, 2 of {len(shapes_file)} images of train\n"
    with Image.open(tmp_path / "reports/labels.png") as picture:
        assert picture.width > picture.height


def test_without_tensor_files_it_names_the_stage_that_makes_them(run_stage: Callable[..., Ended]) -> None:
    ended = run_stage("labels")
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("data/tensors/train: not found") and "preprocess" in line
