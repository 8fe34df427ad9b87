"""NMS against torchvision's, and the post-processor against a plain loop over images and classes."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from ssd.boxes import decode, encode
from ssd.postprocess import PostProcessor, PostProcessSettings, nms_mask


def random_boxes(*shape: int, largest: float = 0.5) -> Tensor:
    """xyxy [*shape, 4], normalised; large ones overlap often."""
    corner = torch.rand(*shape, 2)
    return torch.cat([corner, corner + torch.rand(*shape, 2) * largest], dim=-1)


def descending_scores(*shape: int) -> Tensor:
    return torch.rand(*shape).sort(dim=-1, descending=True).values


def expected_mask(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """torchvision's NMS, row by row."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for row in range(len(scores)):
        num_valid = int((scores[row] > score_threshold).sum())
        kept = nms(boxes[row, :num_valid], scores[row, :num_valid], iou_threshold)
        mask[row, kept] = True
    return mask


@pytest.mark.parametrize("iou_threshold", [0.1, 0.45, 0.8, 1.0])
@pytest.mark.parametrize(("num_rows", "num_columns"), [(1, 1), (1, 2), (7, 30), (40, 64), (3, 400)])
def test_nms_is_torchvisions_row_by_row(num_rows: int, num_columns: int, iou_threshold: float) -> None:
    torch.manual_seed(num_rows * num_columns)
    for score_threshold in (0.0, 0.3, 0.9):
        boxes, scores = random_boxes(num_rows, num_columns), descending_scores(num_rows, num_columns)
        found = nms_mask(boxes, scores, iou_threshold, score_threshold)
        assert torch.equal(found, expected_mask(boxes, scores, iou_threshold, score_threshold))


def test_nms_splits_many_rows_into_blocks_unseen() -> None:
    torch.manual_seed(0)
    boxes, scores = random_boxes(60, 300), descending_scores(60, 300)
    assert torch.equal(nms_mask(boxes, scores, 0.45, 0.0), expected_mask(boxes, scores, 0.45, 0.0))


def test_nms_of_equal_scores_keeps_the_first() -> None:
    torch.manual_seed(0)
    boxes, scores = random_boxes(20, 50), descending_scores(20, 50).mul(5).round().div(5)
    assert torch.equal(nms_mask(boxes, scores, 0.45, 0.1), expected_mask(boxes, scores, 0.45, 0.1))
    same = torch.tensor([[0.1, 0.1, 0.4, 0.4]]).expand(1, 3, 4)
    assert nms_mask(same, torch.ones(1, 3), 0.5, 0.0).tolist() == [[True, False, False]]


def test_nms_follows_long_chains_of_suppression() -> None:
    # Each box overlaps its neighbours only, so every second one is kept.
    left = torch.arange(200) * 0.4
    boxes = torch.stack([left, torch.zeros(200), left + 1, torch.ones(200)], dim=-1)[None]
    scores = torch.linspace(1, 0.5, 200)[None]
    mask = nms_mask(boxes, scores, 0.3, 0.0)
    assert mask[0, ::2].all()
    assert not mask[0, 1::2].any()


def test_nms_keeps_empty_boxes_and_an_overlap_at_the_limit() -> None:
    points = torch.full((1, 4, 4), 0.5)
    assert nms_mask(points, torch.ones(1, 4), 0.45, 0.0).all()
    half = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5]]])
    assert nms_mask(half, torch.tensor([[0.9, 0.8]]), 0.5, 0.0).all()
    assert not nms_mask(half, torch.tensor([[0.9, 0.8]]), 0.4999, 0.0).all()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_nms_of_nothing_is_nothing(shape: tuple[int, int]) -> None:
    assert nms_mask(torch.zeros(*shape, 4), torch.zeros(shape), 0.45, 0.0).shape == shape


def test_nms_drops_scores_at_the_threshold() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6]]])
    assert nms_mask(boxes, torch.tensor([[0.5, 0.25]]), 0.45, 0.25).tolist() == [[True, False]]


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_compiled_nms_is_the_same() -> None:
    torch.manual_seed(0)
    example = random_boxes(2, 10), descending_scores(2, 10)
    traced = torch.jit.trace(lambda b, s: nms_mask(b, s, 0.45, 0.2), example)
    for shape in ((1, 1), (6, 50), (0, 5), (90, 300)):
        boxes, scores = random_boxes(*shape), descending_scores(*shape)
        assert torch.equal(traced(boxes, scores), nms_mask(boxes, scores, 0.45, 0.2))


PRIORS = torch.cat(
    [torch.rand(300, 2, generator=torch.Generator().manual_seed(0)), torch.full((300, 2), 0.2)], 1
)


def raw_outputs(num_images: int, num_classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """loc and logits with detections of all scores."""
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(num_images, len(PRIORS), 4, generator=generator)
    return loc, torch.randn(num_images, len(PRIORS), num_classes, generator=generator) * 3


@pytest.fixture(params=["image by image", "batched"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image by image with a look at the data, as on a CPU, and all at once, as on a GPU and in a trace."""
    if request.param == "batched":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


both_ways = pytest.mark.usefixtures("way")


def expected_detections(
    loc: Tensor, logits: Tensor, settings: PostProcessSettings
) -> list[tuple[float, int, list[float]]]:
    """(score, label, box) of one image, best first; a loop over classes, as in torchvision's SSD."""
    boxes = decode(loc, PRIORS).clamp(0, 1)
    probabilities = logits.softmax(-1)
    found = []
    for label in range(1, logits.shape[-1]):
        scores = probabilities[:, label]
        rows = (scores > settings.score_threshold).nonzero().flatten()
        rows = rows[scores[rows].argsort(descending=True)][: settings.max_per_class]
        rows = rows[nms(boxes[rows], scores[rows], settings.nms_iou)]
        found += [(float(scores[row]), label, boxes[row].tolist()) for row in rows]
    return sorted(found, key=lambda item: -item[0])[: settings.max_detections]


@both_ways
@pytest.mark.parametrize(
    "settings",
    [
        PostProcessSettings(),
        PostProcessSettings(score_threshold=0.3, nms_iou=0.2, max_detections=1000),
        PostProcessSettings(score_threshold=0.0, nms_iou=1.0, max_per_class=10, max_detections=25),
        PostProcessSettings(score_threshold=0.05, nms_iou=0.6, max_per_class=3, max_detections=100),
        PostProcessSettings(score_threshold=0.9, max_detections=1),
    ],
)
def test_detections_are_those_of_a_plain_loop(settings: PostProcessSettings) -> None:
    loc, logits = raw_outputs(3)
    boxes, scores, labels, num_detections = PostProcessor(PRIORS, settings)(loc, logits)
    for image in range(3):
        expected = expected_detections(loc[image], logits[image], settings)
        number = int(num_detections[image])
        assert number == len(expected)
        torch.testing.assert_close(scores[image, :number], torch.tensor([item[0] for item in expected]))
        assert labels[image, :number].tolist() == [item[1] for item in expected]
        torch.testing.assert_close(boxes[image, :number], torch.tensor([item[2] for item in expected]))


@both_ways
def test_batched_equals_single() -> None:
    loc, logits = raw_outputs(4)
    postprocessor = PostProcessor(PRIORS, PostProcessSettings())
    batched = postprocessor(loc, logits)
    for image in range(4):
        single = postprocessor(loc[image : image + 1], logits[image : image + 1])
        for all_images, one in zip(batched, single, strict=True):
            torch.testing.assert_close(all_images[image : image + 1], one)


@both_ways
def test_detections_are_ordered_above_the_threshold_and_apart() -> None:
    settings = PostProcessSettings(score_threshold=0.2, nms_iou=0.3, max_detections=50)
    boxes, scores, labels, num_detections = PostProcessor(PRIORS, settings)(*raw_outputs(3))
    assert (scores.diff(dim=1) <= 0).all()
    for image, number in enumerate(num_detections.tolist()):
        assert number > 10
        assert (scores[image, :number] > 0.2).all()
        assert ((labels[image, :number] >= 1) & (labels[image, :number] <= 4)).all()
        for label in range(1, 5):
            of_label = boxes[image, :number][labels[image, :number] == label]
            assert (box_iou(of_label, of_label).triu(1) <= 0.3 + 1e-6).all()


@both_ways
def test_unused_rows_are_zero() -> None:
    settings = PostProcessSettings(score_threshold=0.95, max_detections=200)
    boxes, scores, labels, num_detections = PostProcessor(PRIORS, settings)(*raw_outputs(2))
    assert (num_detections < 200).all()
    for image, number in enumerate(num_detections.tolist()):
        assert not boxes[image, number:].any()
        assert not scores[image, number:].any()
        assert not labels[image, number:].any()


@both_ways
@pytest.mark.parametrize(("num_classes", "max_per_class"), [(2, 400), (2, 5), (5, 1)])
def test_there_are_k_rows_however_few_the_candidates(num_classes: int, max_per_class: int) -> None:
    settings = PostProcessSettings(max_per_class=max_per_class, max_detections=700)
    boxes, scores, labels, num_detections = PostProcessor(PRIORS, settings)(*raw_outputs(2, num_classes))
    assert boxes.shape == (2, 700, 4)
    assert scores.shape == labels.shape == (2, 700)
    assert (num_detections <= (num_classes - 1) * max_per_class).all()
    assert labels.max() == num_classes - 1


@both_ways
def test_nothing_above_the_threshold_is_no_detection() -> None:
    loc, logits = raw_outputs(2)
    logits[..., 0] = 100
    boxes, scores, labels, num_detections = PostProcessor(PRIORS, PostProcessSettings())(loc, logits)
    assert num_detections.tolist() == [0, 0]
    assert not (boxes.any() or scores.any() or labels.any())


@both_ways
def test_half_precision_outputs_are_processed_in_float32() -> None:
    loc, logits = raw_outputs(1)
    boxes, scores, _, _ = PostProcessor(PRIORS, PostProcessSettings())(loc.bfloat16(), logits.bfloat16())
    assert boxes.dtype == scores.dtype == torch.float32


def clustered_outputs(certainty: float) -> tuple[Tensor, Tensor]:
    """Raw outputs that gather around a few boxes; background is `certainty` above the classes elsewhere."""
    loc, logits = raw_outputs(4, seed=5)
    logits[..., 0] += certainty
    for image in range(4):
        near = (PRIORS[:, :2] - torch.tensor([0.3 + 0.1 * image, 0.5])).norm(dim=1) < 0.2
        logits[image, near, 1 + image % 2] += 5
        loc[image, near] *= 0.2
    return loc, logits


@pytest.mark.parametrize(
    "settings",
    [
        PostProcessSettings(),
        PostProcessSettings(score_threshold=0.0, max_detections=3),
        PostProcessSettings(score_threshold=0.2, nms_iou=0.05, max_per_class=7, max_detections=40),
        PostProcessSettings(score_threshold=1e-6, nms_iou=0.01, max_detections=12),
        PostProcessSettings(score_threshold=0.999, nms_iou=0.9),
    ],
)
@pytest.mark.parametrize("certainty", [0.0, 6.0, 12.0, 200.0, -200.0])
def test_both_ways_find_the_same(
    settings: PostProcessSettings, certainty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = clustered_outputs(certainty)
    postprocessor = PostProcessor(PRIORS, settings)
    found = postprocessor(*outputs)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for one, other in zip(found, postprocessor(*outputs), strict=True):
        torch.testing.assert_close(one, other)


def test_one_box_from_all_priors_is_one_detection_a_class() -> None:
    """NMS has to go far down the candidates to know that there is no other."""
    loc = encode(torch.tensor([0.4, 0.4, 0.6, 0.6]).expand(2, len(PRIORS), 4), PRIORS)
    _, logits = raw_outputs(2)
    logits[..., 4] -= 20
    settings = PostProcessSettings(score_threshold=0.0, max_detections=5)
    *_, labels, num_detections = PostProcessor(PRIORS, settings)(loc, logits)
    assert num_detections.tolist() == [4, 4]
    assert labels[:, :4].sort(dim=1).values.tolist() == [[1, 2, 3, 4]] * 2


@both_ways
def test_of_no_images_there_are_no_detections() -> None:
    boxes, scores, labels, num_detections = PostProcessor(PRIORS, PostProcessSettings())(*raw_outputs(0))
    assert boxes.shape == (0, 200, 4)
    assert scores.shape == labels.shape == (0, 200)
    assert num_detections.shape == (0,)


def test_the_nms_that_is_given_is_the_one_that_is_used() -> None:
    settings = PostProcessSettings(max_detections=1000)
    everything = PostProcessor(PRIORS, settings, nms=lambda boxes, scores, iou, threshold: scores > 0.5)
    assert (everything(*raw_outputs(1))[1] > 0.5).sum() == (
        raw_outputs(1)[1].softmax(-1)[..., 1:] > 0.5
    ).sum()


def test_outputs_with_a_gradient_are_processed_without() -> None:
    loc, logits = raw_outputs(1)
    boxes, *_ = PostProcessor(PRIORS, PostProcessSettings())(loc.requires_grad_(), logits.requires_grad_())
    assert not boxes.requires_grad
