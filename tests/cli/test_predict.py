"""`ssd predict`: what is read and what is skipped, what is written, and what is refused."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from loopback import ok, sends_too_much, serving, web_page
from PIL import Image
from voc_folder import encode, picture
from waiting import Ended

from ssd.inference import reading
from ssd.inference.detector_file import DetectorFile
from ssd.source.glyphs import GLYPHS

Run = Callable[..., Ended]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture(), exif=exif)


def odd_images() -> dict[str, bytes]:
    """Files that are read, by name."""
    grey16 = Image.fromarray(np.linspace(0, 65535, 1200).reshape(30, 40).astype(np.uint16))
    frames = [picture(seed).quantize() for seed in range(3)]
    return {
        **{f"exif{orientation}.jpg": turned(orientation) for orientation in range(1, 9)},
        "grey.jpg": encode(picture().convert("L")),
        "palette.png": encode(picture().quantize(), "PNG", transparency=0),
        "deep.png": encode(grey16, "PNG"),
        "cmyk.jpg": encode(picture().convert("CMYK")),
        "moving.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "moving.webp": encode(picture(), "WEBP", save_all=True, append_images=[picture(1)]),
        "pixel.png": encode(picture(width=1, height=1), "PNG"),
        "wide.png": encode(picture(width=900, height=2), "PNG"),
    }


BROKEN = {
    "truncated.jpg": encode(picture())[:400],
    "empty.jpg": b"",
    "text.jpg": b"hello",
    "phone.heic": b"\0",
}


def test_odd_images_are_read_and_broken_ones_are_named(
    run_ssd: Run, glyph_model: Path, tmp_path: Path
) -> None:
    write(tmp_path / "in", odd_images() | BROKEN)
    ended = run_ssd("predict", glyph_model, tmp_path / "in", "--json", "--score", 0.5)
    assert ended.code == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert {Path(image["source"]).name for image in result["images"]} == set(odd_images())
    assert {Path(skipped["source"]).name for skipped in result["skipped"]} == set(BROKEN)
    lines = ended.stderr.splitlines()
    assert sum("skipped: " in line for line in lines) == len(BROKEN) == len(lines) - 1
    assert lines[-1].endswith("; 4 skipped")
    sizes = {image["image"]: (image["width"], image["height"]) for image in result["images"]}
    assert sizes["exif1.jpg"] == (40, 30)
    assert sizes["exif6.jpg"] == (30, 40)
    assert result["num_detections"] == sum(len(image["detections"]) for image in result["images"]) > 16


def test_every_format_is_written_and_nothing_is_replaced(
    run_ssd: Run, glyph_model: Path, tmp_path: Path
) -> None:
    write(tmp_path, {"a/x.jpg": encode(picture()), "b/x.png": encode(picture(1), "PNG")})
    formats = [word for kind in ("drawn", "coco", "voc", "yolo", "csv") for word in ("--format", kind)]
    words = ("predict", glyph_model, tmp_path / "a/x.jpg", tmp_path / "b/x.png", "--out", tmp_path / "out")
    ended = run_ssd(*words, *formats)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("2 images, ")
    files = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("[!.]*.*")}
    assert files == {
        *("coco.json", "detections.csv", "yolo/classes.txt"),
        *(
            f"{place}/{name}.{end}"
            for place, end in (("drawn", "jpg"), ("voc", "xml"), ("yolo", "txt"))
            for name in ("x", "x-2")
        ),
    }
    images = json.loads((tmp_path / "out/coco.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["x.jpg", "x.png"]
    assert "<filename>x.png</filename>" in (tmp_path / "out/voc/x-2.xml").read_text()
    again = run_ssd(*words, "--format", "csv")
    assert (again.code, len(again.stderr.splitlines())) == (2, 1)
    assert "detections.csv: exists; name another folder by --out" in again.stderr
    assert run_ssd(*words, "--format", "csv", "--overwrite").code == 0


def test_overwriting_leaves_no_file_of_the_former_run_and_every_other_file(
    run_ssd: Run, glyph_model: Path, tmp_path: Path
) -> None:
    write(tmp_path, {"in/below/old.png": encode(picture(), "PNG"), "new.png": encode(picture(1), "PNG")})
    out = tmp_path / "out"
    words = ("--out", out, *(word for kind in ("drawn", "voc", "yolo") for word in ("--format", kind)))
    assert run_ssd("predict", glyph_model, tmp_path / "in", *words).code == 0
    assert (out / "yolo/below/old.txt").is_file()
    write(out, {"yolo/own.txt": b"0 1 1 1 1", "drawn/below/own.jpg": b""})
    assert run_ssd("predict", glyph_model, tmp_path / "new.png", *words, "--overwrite").code == 0
    left = {file.relative_to(out).as_posix() for file in out.rglob("[!.]*")}
    results = {"drawn/new.jpg", "voc/new.xml", "yolo/new.txt", "yolo/classes.txt"}
    assert left == {"drawn", "voc", "yolo", *results, "yolo/own.txt", "drawn/below", "drawn/below/own.jpg"}
    assert (tmp_path / "in/below/old.png").is_file()


def test_thresholds_are_of_classes_too(run_ssd: Run, glyph_model: Path, tmp_path: Path) -> None:
    write(tmp_path, {"x.png": encode(picture(width=90, height=70), "PNG")})

    def scores(*options: object) -> dict[str, list[float]]:
        ended = run_ssd("predict", glyph_model, tmp_path / "x.png", "--json", *options)
        found: dict[str, list[float]] = {name: [] for name in GLYPHS}
        for row in json.loads(ended.stdout)["images"][0]["detections"]:
            found[row["class"]].append(row["score"])
        return found

    every = scores("--score", 0.05)
    name = max(every, key=lambda key: len(every[key]))
    chosen = scores("--score", 0.4, "--class-score", f"{name}=0.9")
    for key, values in every.items():
        assert chosen[key] == [value for value in values if value >= (0.9 if key == name else 0.4)]
    assert scores() == scores("--score", 0.3)
    wrong = run_ssd("predict", glyph_model, tmp_path / "x.png", "--class-score", f"{name}s=0.5")
    assert wrong.code == 2
    assert f"did you mean {name}?" in wrong.stderr


def test_batches_change_nothing(
    run_ssd: Run, glyph_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{seed}.png": encode(picture(seed, 40 + 20 * (seed % 2)), "PNG") for seed in range(7)}
    write(tmp_path / "in", files)

    def found(batch: int) -> list[tuple[str, int]]:
        ended = run_ssd("predict", glyph_model, tmp_path / "in", "--json", "--batch", batch)
        return [(image["image"], len(image["detections"])) for image in json.loads(ended.stdout)["images"]]

    alone = found(1)
    assert [name for name, _ in alone] == sorted(files)
    assert found(4) == alone
    monkeypatch.setattr(reading, "MAX_PIXELS", 3000)
    assert found(4) == alone


def test_exit_code_1_if_nothing_could_be_read(run_ssd: Run, glyph_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "in", BROKEN)
    ended = run_ssd("predict", glyph_model, tmp_path / "in", "--out", tmp_path / "out")
    assert ended.code == 1
    assert ended.stdout.startswith("0 images, 0 detections; 4 skipped")


def test_urls_are_fetched_only_when_told(
    run_ssd: Run, glyph_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 100_000)
    with serving() as server:
        good = server.serve("/a.png", encode(picture(), "PNG"), ok)
        bad = server.serve("/b.png", b"", sends_too_much), server.serve("/c.png", b"", web_page)
        refused = run_ssd("predict", glyph_model, good, "--json")
        assert (refused.code, server.requests) == (2, [])
        ended = run_ssd("predict", glyph_model, good, *bad, f"{server.base}/d.png", "--json", "--allow-urls")
    result = json.loads(ended.stdout)
    assert [image["image"] for image in result["images"]] == ["a.png"]
    reasons = [skipped["reason"] for skipped in result["skipped"]]
    assert reasons == ["sends more than 100,000 bytes", "sends a web page", "HTTP 404"]


def test_a_video_becomes_a_drawn_film_and_the_same_tables(
    run_ssd: Run, glyph_model: Path, tmp_path: Path
) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as clip:
        stream = clip.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for seed in range(5):
            clip.mux(stream.encode(av.VideoFrame.from_image(picture(seed, 64, 48))))
        clip.mux(stream.encode(None))
    options = ("--every", 2, "--format", "drawn", "--format", "coco", "--format", "voc", "--batch", 2)
    ended = run_ssd("predict", glyph_model, tmp_path / "clip.mp4", "--out", tmp_path / "out", *options)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("3 images, ")
    images = json.loads((tmp_path / "out/coco.json").read_text())["images"]
    assert [(image["frame"], image["file_name"]) for image in images] == [
        (frame, f"clip/{frame:06d}.jpg") for frame in (0, 2, 4)
    ]
    names = sorted(file.name for file in (tmp_path / "out/voc/clip").iterdir())
    assert names == ["000000.xml", "000002.xml", "000004.xml"]
    with av.open(str(tmp_path / "out/drawn/clip.mp4")) as film:
        frames = list(film.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([0.0, 0.2, 0.4], abs=1e-3)
    assert (frames[0].width, frames[0].height) == (512, 384)


def test_ctrl_c_ends_it_with_complete_results(
    run_ssd: Run, glyph_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", {f"{seed}.png": encode(picture(seed), "PNG") for seed in range(6)})
    detect, before = DetectorFile.detect, signal.getsignal(signal.SIGINT)

    def interrupted(self: DetectorFile, images: list) -> list:  # type: ignore[type-arg]
        signal.raise_signal(signal.SIGINT)
        return detect(self, images)

    monkeypatch.setattr(DetectorFile, "detect", interrupted)
    words = ("--format", "coco", "--batch", 2, "--out", tmp_path / "out")
    ended = run_ssd("predict", glyph_model, tmp_path / "in", *words)
    assert (ended.code, ended.stdout[:19]) == (130, "stopped: 2 images, ")
    assert len(json.loads((tmp_path / "out/coco.json").read_text())["images"]) == 2
    assert signal.getsignal(signal.SIGINT) is before
