"""`python -m stages.labels`: draw annotated training images as preprocess left them; no stage of dvc.yaml.

To look at before anything is trained, after `dvc repro preprocess`. It writes reports/labels.png.
"""

import sys
from pathlib import Path

from ssd.loading.tensor_file import TensorFile
from ssd.params import Params
from ssd.plots.figures import save_figure
from ssd.plots.pictures import label_figure, spread
from stages.command import command

PICTURE = Path("reports/labels.png")


@command
def main(params: Params) -> None:
    file = TensorFile("data/tensors/train", train_on_difficult=params.train.train_on_difficult)
    chosen = spread(len(file), params.report.num_pictures)
    figure = label_figure(
        [file.image(index) for index in chosen],
        [file.objects(index) for index in chosen],
        [file.image_ids[index] for index in chosen],
        file.class_names,
    )
    save_figure(figure, PICTURE)
    print(f"drawn: {PICTURE}, {len(chosen)} of {len(file)} images of train")


if __name__ == "__main__":
    main(sys.argv[1:])
