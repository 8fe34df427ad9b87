"""`params.yaml` as typed, validated objects. Every key is required; unknown keys are errors."""

import unicodedata
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from ssd.errors import UserError
from ssd.params_errors import describe_all, not_allowed
from ssd.params_file import read_params_file
from ssd.params_space import Axis, as_content, read_space

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


def _auto_or_count(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31:
        return value
    raise not_allowed("", repr(value), "auto, or a number from 1")


def _plain_text(value: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise not_allowed("", repr(value), "text without control characters")
    return value


def _path_text(value: str) -> str:
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise not_allowed("", repr(value), "a path; this user has no home folder here") from None
    return value


Text = Annotated[str, AfterValidator(_plain_text)]
PathText = Annotated[Text, AfterValidator(_path_text)]

# One validator, because pydantic would report an error per member of a union.
AutoOrCount = Annotated[int | Literal["auto"], PlainValidator(_auto_or_count)]

Source = Literal[
    "shapes",
    "voc2007",
    "voc2012",
    "voc0712",
    "coco",
    "penn_fudan",
    "folder",
    "voc_dir",
    "coco_json",
    "yolo_dir",
]

SelectBy = Literal["map50", "map75", "map", "f1", "mean", "map50_f1", "val_loss", "train_loss"]

Objective = Literal["map50", "map", "f1", "mean", "map50_f1", "fused_map50_f1"]

NOT_OF_A_RUN = {"tracking", "tune"}
"""Sections that change nothing of what the stages write."""

PUBLISHED_WEIGHTS = ("imagenet", "coco")
"""Values of `model.weights` that name weights of torchvision's; the others are none and files."""

OLDEST_OPSET = 18
NEWEST_OPSET = {"ssd": 23, "faster_rcnn": 21}
"""Of the ONNX file, by `model.family`."""


def allowed_opsets(family: str) -> str:
    """The operator sets that a family can be exported in, for messages."""
    reason = ": ONNX Runtime has no newer RoiAlign" if family == "faster_rcnn" else ""
    return f"{OLDEST_OPSET}-{NEWEST_OPSET[family]} with model.family {family}{reason}"


class Section(BaseModel):
    """A section of params.yaml: flat, immutable, strictly typed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataParams(Section):
    source: Source
    path: PathText
    classes: list[Text]
    archives: PathText
    mirrors: list[Text]
    folds: Annotated[int, Field(ge=0, le=100)]
    fold: CountOrZero
    shapes_train: Count
    shapes_val: Count
    shapes_test: Count
    shapes_side: Annotated[int, Field(ge=64, le=2048)]
    shapes_seed: Annotated[int, Field(ge=0, lt=2**31)]

    @model_validator(mode="after")
    def check_classes(self) -> "DataParams":
        repeated = sorted(name for name, number in Counter(self.classes).items() if number > 1)
        if repeated:
            raise not_allowed("classes", f"{', '.join(repeated)} more than once", "unique names")
        return self

    @model_validator(mode="after")
    def check_folds(self) -> "DataParams":
        if self.folds == 1:
            raise not_allowed("folds", "1", "0, or from 2")
        if self.fold >= max(self.folds, 1):
            raise not_allowed("fold", self.fold, f"below data.folds ({self.folds})")
        return self


class PreprocessParams(Section):
    max_side: Annotated[int, Field(ge=32, le=16384)]
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    val_fraction: Annotated[float, Field(ge=0, lt=1)]
    test_fraction: Annotated[float, Field(ge=0, lt=1)]
    train_on_val: bool
    split_seed: Annotated[int, Field(ge=0, lt=2**31)]
    strict: bool
    shards: Annotated[int, Field(ge=1, lt=100_000)]
    workers: CountOrZero


class ModelParams(Section):
    family: Literal["ssd", "faster_rcnn"]
    backbone: Annotated[str, Field(pattern=r"^(timm/)?[a-z0-9_.]+$")]
    weights: Annotated[PathText, Field(min_length=1)]
    input_scale: Literal["auto", "imagenet", "caffe"]
    input_size: Annotated[int, Field(ge=64, le=2048)]
    strides: list[Literal[2, 4, 8, 16, 32]]
    neck: Literal["none", "fpn"]
    heads: Literal["conv3x3", "conv1x1", "ssdlite"]
    width: Count
    priors: Literal["paper", "table", "kmeans"]
    scale_first: Annotated[float, Field(gt=0, lt=1)]
    scale_second: Annotated[float, Field(gt=0, lt=1)]
    scale_last: Annotated[float, Field(gt=0, le=2)]
    prior_scales: list[Annotated[float, Field(gt=0, le=2)]]
    prior_ratios: list[Annotated[list[Annotated[float, Field(gt=0, le=20)]], Field(min_length=1)]]
    prior_steps: list[Positive]
    prior_clusters: Count

    @model_validator(mode="after")
    def check_scales(self) -> "ModelParams":
        if not self.scale_first < self.scale_second < self.scale_last:
            found = f"{self.scale_first}, {self.scale_second}, {self.scale_last}"
            raise not_allowed("scale_second", found, "between scale_first and scale_last")
        return self

    @model_validator(mode="after")
    def check_tables(self) -> "ModelParams":
        if self.family == "faster_rcnn" and self.priors == "table":
            raise not_allowed("priors", "table with family: faster_rcnn", "paper or kmeans")
        if sorted(set(self.strides)) != self.strides:
            raise not_allowed("strides", self.strides, "increasing strides")
        extra = len(self.prior_scales) - len(self.prior_ratios)
        if self.priors == "table" and (not self.prior_ratios or extra not in (0, 1)):
            found = f"{len(self.prior_scales)} scales and {len(self.prior_ratios)} lists of ratios"
            raise not_allowed("prior_scales", found, "as many as prior_ratios, or one more")
        return self

    @model_validator(mode="after")
    def check_weights(self) -> "ModelParams":
        if self.weights != "coco":
            return self
        if self.family == "faster_rcnn" and (self.backbone, self.width) != ("resnet50", 256):
            found = f"coco with {self.backbone} of width {self.width}"
            raise not_allowed(
                "weights", found, "coco with resnet50 of width 256; else none, imagenet, a file"
            )
        if self.family == "ssd" and (self.backbone, self.input_size) != ("vgg16", 300):
            found = f"coco with {self.backbone} at {self.input_size}"
            raise not_allowed("weights", found, "coco with vgg16 at 300; else none, imagenet, a file")
        return self


class AugmentParams(Section):
    policy: Literal["none", "light", "ssd", "object_crop"]
    flip: Fraction
    zoom_out: Fraction
    zoom_max: Annotated[float, Field(ge=1, le=8)]
    crop: Fraction
    object_crop: Fraction
    object_min: Annotated[float, Field(ge=1)]
    object_max: Annotated[float, Field(ge=1)]
    object_shape: Literal["free", "box"]
    resized_crop: Fraction
    crop_area: Annotated[float, Field(gt=0, le=1)]
    crop_ratio: Annotated[float, Field(ge=1)]
    target_visible: Annotated[float, Field(gt=0, le=1)]
    others_visible: Fraction
    crop_tries: Count
    photometric: Fraction
    brightness: Fraction
    contrast: Fraction
    saturation: Fraction
    hue: Annotated[float, Field(ge=0, le=0.5)]
    channel_shuffle: Fraction
    mosaic: Fraction
    mixup: Fraction

    @model_validator(mode="after")
    def check_crops(self) -> "AugmentParams":
        if self.object_min > self.object_max:
            raise not_allowed("object_max", self.object_max, f"from object_min ({self.object_min})")
        if self.object_crop + self.resized_crop > 1 + 1e-9:
            total = f"{self.resized_crop} with object_crop {self.object_crop}"
            raise not_allowed("resized_crop", total, "object_crop and resized_crop of at most 1 together")
        return self


class TrainParams(Section):
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]  # batch norm needs two
    accumulate: Count
    optimizer: Literal["sgd", "adam", "adamw"]
    lr: Positive
    backbone_lr: Positive
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NonNegative
    schedule: Literal["step", "cosine", "plateau", "constant"]
    warmup_steps: CountOrZero
    milestones: list[Annotated[float, Field(gt=0, lt=1)]]
    gamma: Annotated[float, Field(gt=0, lt=1)]
    patience: CountOrZero
    plateau_threshold: Annotated[float, Field(ge=0, lt=1)]
    clip_norm: NonNegative
    ema: Annotated[float, Field(ge=0, lt=1)]
    freeze_stages: Annotated[int, Field(ge=0, le=5)]
    freeze_bn: bool
    match_iou: Annotated[float, Field(gt=0, lt=1)]
    conf_loss: Literal["cross_entropy", "focal"]
    negatives: Positive
    negatives_by: Literal["loss", "confidence"]
    min_negatives: CountOrZero
    focal_gamma: NonNegative
    focal_alpha: Annotated[float, Field(gt=0, lt=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    box_loss: Literal["smooth_l1", "l1", "giou", "ciou"]
    smooth_l1_beta: Positive
    box_weight: Positive
    train_on_difficult: bool
    skip_empty: bool
    repeat_threshold: Fraction
    small_epochs: CountOrZero
    small_scale: Annotated[float, Field(gt=0, le=1)]
    multi_scale: Annotated[float, Field(ge=0, lt=1)]
    val_every: Count
    val_batch_size: CountOrZero
    select_by: SelectBy
    f1_score: Annotated[float, Field(ge=0, lt=1)]
    keep_best: Count
    early_stop: CountOrZero
    max_skipped: CountOrZero
    checkpoint_minutes: Positive
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    channels_last: bool
    compile: bool
    deterministic: bool
    device: Literal["auto", "cpu", "cuda"]
    devices: AutoOrCount
    restarts: CountOrZero
    sync_bn: bool
    workers: CountOrZero
    cache: Literal["none", "ram"]
    seed: Annotated[int, Field(ge=0, lt=2**31)]

    @model_validator(mode="after")
    def check_milestones(self) -> "TrainParams":
        if sorted(set(self.milestones)) != self.milestones:
            raise not_allowed("milestones", self.milestones, "increasing fractions")
        return self


class EvaluateParams(Section):
    batch_size: Count
    score_threshold: Annotated[float, Field(ge=0, lt=1)]
    nms_iou: Annotated[float, Field(gt=0, le=1)]
    max_detections: Annotated[int, Field(ge=1, le=10_000)]
    ensemble: Annotated[int, Field(ge=1, le=20)]
    models: list[Annotated[PathText, Field(min_length=1)]]
    resamples: Annotated[int, Field(ge=0, le=100_000)]
    device: Literal["auto", "cpu", "cuda"]
    workers: CountOrZero


class ExportParams(Section):
    score_threshold: Annotated[float, Field(ge=0, lt=1)]
    nms_iou: Annotated[float, Field(gt=0, le=1)]
    max_detections: Annotated[int, Field(ge=1, le=10_000)]
    opset: Annotated[int, Field(ge=OLDEST_OPSET, le=max(NEWEST_OPSET.values()))]
    num_images: Count
    tolerance: Positive


class ReportParams(Section):
    num_pictures: CountOrZero


class TrackingParams(Section):
    enabled: bool
    experiment: Annotated[Text, Field(min_length=1)]
    run_name: Text
    system_metrics: bool
    uri: Text


class TuneParams(Section):
    trials: Count
    workers: Count
    objective: Objective
    seeds: Annotated[int, Field(ge=2, le=100)]  # one has no spread
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    startup_trials: CountOrZero
    prune_after: Count
    space: Annotated[dict[str, Axis], PlainValidator(read_space), PlainSerializer(as_content)]

    @property
    def select_by(self) -> SelectBy:
        """The score of an epoch by which trials are pruned, and their best epochs are chosen."""
        return "map50_f1" if self.objective == "fused_map50_f1" else self.objective

    @property
    def is_fused(self) -> bool:
        """Whether the objective is a score of the best models of a trial together."""
        return self.objective == "fused_map50_f1"


class Params(Section):
    """The whole of params.yaml."""

    data: DataParams
    preprocess: PreprocessParams
    model: ModelParams
    augment: AugmentParams
    train: TrainParams
    evaluate: EvaluateParams
    export: ExportParams
    report: ReportParams
    tracking: TrackingParams
    tune: TuneParams

    @model_validator(mode="after")
    def check_opset(self) -> "Params":
        if self.export.opset > NEWEST_OPSET[self.model.family]:
            raise not_allowed("export.opset", self.export.opset, allowed_opsets(self.model.family))
        return self


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and validate a params file.

    Raises:
        UserError: the file is missing, not YAML, or a key is unknown, missing, of the wrong type or
            out of range; one line per problem, each with file, section and key, what was found and
            what is allowed.
    """
    path = Path(path)
    content = read_params_file(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected the sections {', '.join(Params.model_fields)}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(describe_all([dict(found) for found in error.errors()], Params, path.name)) from None
