"""One thin script a DVC stage: read params, call `ssd`, write outputs, log."""
