"""Single Shot MultiBox Detector: data path, model, training, evaluation and export."""
