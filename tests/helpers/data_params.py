"""Sections of params.yaml for the tests of ssd/source and ssd/prepare."""

from ssd.params import DataParams, PreprocessParams, Source


def data_params(source: Source, **changes: object) -> DataParams:
    values: dict[str, object] = {
        "source": source,
        "path": "own",
        "classes": [],
        "archives": "archives",
        "mirrors": [],
        "folds": 0,
        "fold": 0,
        "shapes_train": 5,
        "shapes_val": 2,
        "shapes_test": 3,
        "shapes_side": 64,
        "shapes_seed": 1,
    }
    return DataParams.model_validate(values | changes)


def preprocess_params(**changes: object) -> PreprocessParams:
    values: dict[str, object] = {
        "max_side": 640,
        "jpeg_quality": 95,
        "val_fraction": 0.0,
        "test_fraction": 0.0,
        "train_on_val": False,
        "split_seed": 0,
        "strict": False,
        "shards": 1,
        "workers": 1,
    }
    return PreprocessParams.model_validate(values | changes)
