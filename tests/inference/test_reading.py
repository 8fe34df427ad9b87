"""What is read before it is asked for."""

import pytest
import torch

from ssd.inference import reading
from ssd.inference.sources import Picture, Source


def test_a_large_batch_reads_few_images_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def read_image(source: Source) -> Picture:
        begun.append(source.name)
        return Picture(source, torch.zeros(3, 1, 1, dtype=torch.uint8))

    monkeypatch.setattr(reading, "read_image", read_image)
    names = [str(number) for number in range(40)]
    sources = [Source("image", name, name, name) for name in names]
    pictures = reading.read_pictures(sources, 1, num_ahead=1024)
    first = next(pictures)
    assert len(begun) <= 1 + reading.MAX_AHEAD
    assert [picture.name for picture in (first, *pictures)] == names
