"""People's data as labelling tools export it: each image, box and split is read, or accounted for."""

from pathlib import Path

import pytest
from data_params import data_params, preprocess_params
from exports import CLASSES, EXPORTS, NUM_OBJECTS, TRUTH, Export

from ssd.params import DataParams
from ssd.prepare.annotations import Catalogue
from ssd.prepare.preprocess import Preprocessed, declared_classes, preprocess
from ssd.prepare.sources import read_source
from ssd.prepare.splits import make_splits
from ssd.prepare.summary import account
from ssd.source.download import download


def prepared(data: DataParams, root: Path, **changes: object) -> tuple[Catalogue, Preprocessed]:
    """Read the data set of `root / data.path` as the stages download and preprocess do."""
    download(data, root / "raw", root)
    catalogue = read_source(data, root / "raw")
    params = preprocess_params(**changes)
    listing = make_splits(catalogue, data, params)
    return catalogue, preprocess(listing, declared_classes(data, catalogue), params, root)


def boxes_by_image(result: Preprocessed) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """Stem -> class and box of each object, over all splits."""
    return {
        Path(sample.id).stem if "." in sample.id else sample.id.rpartition("/")[2]: [
            (result.class_names[label - 1], box)
            for label, box in zip(sample.labels, sample.boxes, strict=True)
        ]
        for split, found in result.splits.items()
        for sample in found.samples
        if not (result.test_is_val and split == "val")
    }


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS.keys())
def test_an_export_is_read_as_it_is_with_every_box_right(tmp_path: Path, export: Export) -> None:
    export.write(tmp_path / "own")
    data = data_params("folder", classes=export.classes)
    catalogue, result = prepared(data, tmp_path)
    assert sorted(result.class_names) == list(CLASSES)
    assert {split: len(refs) for split, refs in catalogue.images.items()} == export.splits
    assert catalogue.found.made_of.keys() == export.splits.keys()
    found = boxes_by_image(result)
    assert found.keys() == TRUTH.keys()
    for stem, objects in TRUTH.items():
        assert [name for name, _ in found[stem]] == [name for name, _ in objects]
        for (_, box), (_, truth) in zip(found[stem], objects, strict=True):
            assert box == pytest.approx(truth, abs=0.011), "YOLO rounds to six decimals"
    counts = account(result, catalogue.found)
    assert (counts.num_images_found, counts.num_images_kept, counts.num_images_dropped) == (10, 10, 0)
    assert (counts.num_objects_found, counts.num_objects_kept) == (NUM_OBJECTS, NUM_OBJECTS)
    assert counts.num_objects_dropped == 0
