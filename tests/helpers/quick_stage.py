"""Writes samples of what a stage writes: `python quick_stage.py STAGE`, in the folder of a project.

`python -m stages.pack K` is this file, too, in a folder `stages`.
"""

import json
import sys
from pathlib import Path

COUNTS = {"num_images": 3, "num_objects": 5}
MATRIX = "actual\tcat\tdog\tmissed\ncat\t7\t1\t2\ndog\t0\t5\t0\nbackground\t3\t4\t0\n"
PICTURES = (
    "history",
    "priors",
    "augmentation",
    "precision_recall",
    "confusion_matrix",
    "detections",
    "worst",
)
SAMPLES: dict[str, dict[str, str]] = {
    "check_params": {"reports/check_params.txt": "valid"},
    "download": {"data/raw/shapes/a.jpg": "image"},
    "preprocess": {
        **{f"data/tensors/{split}/00000-of-00001.safetensors": split for split in ("train", "val", "test")},
        "reports/preprocess/problems.json": json.dumps({"problems": [{"action": "mended", "split": "test"}]}),
        "reports/preprocess/summary.json": json.dumps(
            {"account": {"num_images_found": 9}, "splits": {"train": COUNTS}, "warnings": ["few images"]}
        ),
    },
    "train": {
        "models/model.pt": "weights",
        "models/best/2.pt": "other weights",
        "reports/train/history.tsv": "epoch\ttrain_loss\tval_map50\tval_f1\n1\t9.5\t0.1\t\n2\t7.5\t0.25\t\n",
    },
    "evaluate": {
        "reports/metrics.json": json.dumps(
            {
                "coco": {"map50": 0.25, "map50_interval": [0.2, 0.3], "map_large": None},
                "per_class": [{"ap": 0.5}],
            }
        ),
        "reports/evaluate/detections.json": "[]",
        "reports/evaluate/confusion_matrix.tsv": MATRIX,
    },
    "export": {
        "models/export/ssd.onnx": "onnx",
        "models/export/ssd.torchscript.pt": "torchscript",
        "reports/export.json": json.dumps({"ssd.onnx": {"latency_ms": 1.5}}),
    },
    "report": {"reports/index.html": "<!DOCTYPE html>", **{f"reports/{name}.png": name for name in PICTURES}},
}

PACKED = "data/packed/0000{}-of-00002.safetensors"

if __name__ == "__main__":
    stage = sys.argv[1]
    samples = {PACKED.format(stage): f"packed {stage}"} if stage.isdigit() else SAMPLES[stage]
    if stage == "preprocess":
        found = sorted(path.read_text() for path in Path("data").glob("packed/*.safetensors"))
        sys.stdout.write(f"found: {', '.join(found)}\n")
    for name, content in samples.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
