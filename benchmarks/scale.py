"""Bytes, minutes and cost of each stage on large data sets, by the rates that were measured or published.

python -m benchmarks.scale    # prints the tables of docs/scale.md
"""

from dataclasses import dataclass

from benchmarks.growth import FACTORS, Curve
from benchmarks.results import FOLDER, read_results

GB = 1e9


@dataclass(frozen=True)
class DataSet:
    """A public data set, and how long SSD300 is trained on it.

    num_train, num_test: images; num_boxes: of train; num_classes: without background; raw_bytes: of the
    images as published; image_bytes: of one in the tensor files, at preprocess.max_side 640; resized: whether
    its images are larger than that; epochs: of the published training, or the one assumed here.
    """

    name: str
    num_train: int
    num_test: int
    num_boxes: int
    num_classes: int
    raw_bytes: float
    image_bytes: float
    resized: bool
    epochs: int


DATA_SETS = (
    DataSet("Pascal VOC 07+12", 16_551, 4_952, 47_223, 20, 2.9 * GB, 110e3, False, 232),
    DataSet("COCO 2017", 118_287, 5_000, 860_001, 80, 19.3 * GB, 163e3, False, 65),
    DataSet("Open Images V7", 1_743_042, 125_436, 14_610_229, 601, 561 * GB, 110e3, True, 12),
)


@dataclass(frozen=True)
class Rates:
    """What a machine does, and what it costs.

    download: bytes/s of its network; keep, resize: images/s of preprocess per core, for images as they are
    and for larger ones; read_image, read_box, pair: its seconds on one core for each image and box of the
    annotations, and each pair of a training and a test image; decode: images/s of the input pipeline per
    core; train: images/s of SSD300 on ResNet50 per GPU; scaling: of several GPUs, against as many times one;
    score: seconds of pycocotools per test image and class; cores, gpus: of the machine; core_hour, gpu_hour:
    dollars.
    """

    download: float = 100e6
    keep: float = 516.0
    resize: float = 150.0
    read_image: float = 175e-6
    read_box: float = 39e-6
    pair: float = 6.5e-9
    decode: float = 300.0
    train: float = 663.0
    scaling: float = 0.95
    score: float = 300e-6
    cores: int = 64
    gpus: int = 8
    core_hour: float = 0.04
    gpu_hour: float = 2.0


@dataclass(frozen=True)
class Need:
    """What a stage needs. stored: bytes that it writes; minutes: on the machine; dollars: of these."""

    stage: str
    stored: float
    minutes: float
    dollars: float


def stage_needs(data: DataSet, rates: Rates) -> list[Need]:
    """The stages whose work grows with the data set.

    Preprocess decodes on all cores; it reads the annotations and compares each training image with each test
    image on one. Evaluation runs the network without its backward pass, so at most in the time of a training
    step; then pycocotools compares every pair of an image and a class, on one core.
    """
    num_images = data.num_train + data.num_test
    tensors = num_images * data.image_bytes
    decoding = num_images / (rates.resize if data.resized else rates.keep) / rates.cores
    reading = num_images * rates.read_image + data.num_boxes * rates.read_box
    comparing = data.num_train * data.num_test * rates.pair
    network = rates.train * rates.gpus * rates.scaling
    seconds = {
        "download": (data.raw_bytes, data.raw_bytes / rates.download, 0),
        "preprocess": (tensors, decoding + reading + comparing, 0),
        "train": (0.0, data.epochs * data.num_train / network, rates.gpus),
        "evaluate": (0.0, data.num_test * (1 / rates.train + data.num_classes * rates.score), 1),
    }
    return [
        Need(stage, stored, time / 60, time / 3600 * (rates.cores * rates.core_hour + gpus * rates.gpu_hour))
        for stage, (stored, time, gpus) in seconds.items()
    ]


def cores_to_feed(rates: Rates) -> float:
    """Cores that decode and augment as fast as the GPUs of the machine train."""
    return rates.train * rates.gpus * rates.scaling / rates.decode


def needs_table(rates: Rates) -> str:
    """Markdown: a line for each data set and stage."""
    lines = ["| data set | stage | written | minutes | dollars |", "| --- | --- | ---: | ---: | ---: |"]
    for data in DATA_SETS:
        for need in stage_needs(data, rates):
            stored = f"{need.stored / GB:.3g} GB" if need.stored else ""
            cells = (data.name, need.stage, stored, f"{need.minutes:.1f}", f"{need.dollars:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def growth_table(curves: list[Curve]) -> str:
    """Markdown: a line for each curve."""
    times = " | ".join(f"{factor}x" for factor in FACTORS)
    lines = [
        f"| part | grows with | {times} | exponent | memory |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for curve in curves:
        cells = " | ".join(_milliseconds(value) for value in curve.seconds)
        memory = f"{' / '.join(f'{value:.0f}' for value in curve.mib)} MiB" if curve.mib else ""
        lines.append(f"| {curve.part} | {curve.axis} | {cells} | {curve.exponent:.2f} | {memory} |")
    return "\n".join(lines)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.1 else f"{seconds * 1000:.3g} ms"


def main() -> None:
    rates = Rates()
    print(f"{needs_table(rates)}\n\ncores to feed {rates.gpus} GPUs: {cores_to_feed(rates):.0f}\n")
    found = read_results(["growth"])["growth"]
    if found is None:
        print(f"no {FOLDER / 'growth.json'}: run python -m benchmarks.growth")
        return
    print(growth_table([Curve(**curve) for curve in found.settings["curves"]]))


if __name__ == "__main__":
    main()
