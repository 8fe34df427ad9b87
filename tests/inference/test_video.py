"""Films that are written and read, upright, in part, damaged; cameras."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ssd.inference import video
from ssd.inference.sources import Picture, Source, Unread
from ssd.inference.video import film, read_frames

UPRIGHT = b"\0\1\0\0" + bytes(12) + b"\0\1\0\0" + bytes(12) + b"\x40\0\0\0"
TURNED = bytes(4) + b"\0\1\0\0" + bytes(4) + b"\xff\xff\0\0" + bytes(16) + b"\x40\0\0\0"
"""The matrix of an MP4 track: as it is, and shown turned by 90 degrees clockwise."""


def write_clip(path: Path, num_frames: int = 6, height: int = 33, width: int = 50) -> Source:
    """Grey levels that rise by 30 from frame to frame, at ten frames per second; the left half is black."""
    with film(path) as add:
        for index in range(num_frames):
            frame = np.full((height, width, 3), 60 + 30 * index, np.uint8)
            frame[:, : width // 2] = 0
            add(frame, Fraction(index, 10))
    return Source("video", str(path), path.stem, path.name)


def frames(source: Source, every: int = 1) -> list[Picture]:
    found = list(read_frames(source, every))
    assert all(isinstance(frame, Picture) for frame in found), found
    return [frame for frame in found if isinstance(frame, Picture)]


def test_a_film_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = frames(write_clip(tmp_path / "clip.mp4"))
    assert [frame.name for frame in found] == [f"clip/{index:06d}" for index in range(6)]
    assert [frame.time for frame in found] == [Fraction(index, 10) for index in range(6)]
    for index, frame in enumerate(found):
        assert frame.size == (32, 50)  # even sides
        assert abs(frame.image[:, :, 30:].float().mean() - (60 + 30 * index)) < 6
        assert frame.image[:, :, :20].float().mean() < 6


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_a_film_is_written_without_h_264_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    monkeypatch.setattr(video, "CODECS", {codec: video.CODECS[codec]})
    found = frames(write_clip(tmp_path / "clip.mp4"))
    assert [frame.time for frame in found] == [Fraction(index, 10) for index in range(6)]


def test_every_third_frame_keeps_its_number(tmp_path: Path) -> None:
    assert [frame.frame for frame in frames(write_clip(tmp_path / "a.mp4"), every=4)] == [0, 4]


def test_a_telephone_s_video_is_turned(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", num_frames=2)
    content = Path(source.place).read_bytes()
    start = content.index(UPRIGHT, content.index(b"tkhd"))
    Path(source.place).write_bytes(content[:start] + TURNED + content[start + len(TURNED) :])
    turned = frames(source)[0]
    assert turned.size == (50, 32)
    # Clockwise: what was on the left is on top.
    assert turned.image[:, :20].float().mean() < 6 < turned.image[:, 30:].float().mean()


def test_a_broken_film_gives_what_comes_before(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4")
    content = Path(source.place).read_bytes()
    for damaged in (b"", b"text", content[: len(content) // 2]):
        Path(source.place).write_bytes(damaged)
        (found,) = read_frames(source, 1)
        assert isinstance(found, Unread)
        assert found.reason


def test_a_film_that_fails_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError), film(tmp_path / "a.mp4") as add:
        add(np.zeros((8, 8, 3), np.uint8), Fraction(0))
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_camera_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "camera_device", lambda number: (f"/dev/no-camera-{number}", "v4l2"))
    (found,) = read_frames(Source("camera", "7", "camera-7", "camera-7"), 1)
    assert isinstance(found, Unread)
    assert "No such file" in found.reason


def test_a_camera_is_read_as_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "a.mp4").place
    monkeypatch.setattr(video, "camera_device", lambda number: (clip, "mp4"))
    assert len(frames(Source("camera", "0", "camera-0", "camera-0"))) == 6
