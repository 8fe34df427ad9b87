"""What the words of a command line name, and under which names results are written."""

from pathlib import Path

import pytest

from ssd.errors import UserError
from ssd.inference.sources import Source, find_sources


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def found(folder: Path, *texts: str) -> list[Source]:
    return find_sources([str(folder / text) for text in texts], folder / "out")


def names(sources: list[Source]) -> list[str]:
    return [source.name for source in sources]


def test_a_folder_is_read_with_the_folders_in_it(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a/1.JPG",
        "a/b/2.png",
        "a/b/c/3.heic",
        "a/notes.txt",
        "a/.hidden/4.jpg",
        "a/.5.jpg",
        "a/6.mp4",
    )
    assert names(found(tmp_path, "a")) == ["1", "b/2", "b/c/3"]


def test_globs_are_expanded_and_nothing_comes_twice(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.png", "a/3.mp4", "a/4.txt", "a/.5.jpg")
    sources = found(tmp_path, "a/2.png", "a/*", "a/**/1.jpg", "a")
    assert names(sources) == ["2", "1", "3"]
    assert [source.kind for source in sources] == ["image", "image", "video"]


def test_a_file_with_the_signs_of_a_glob_is_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "a[1]*.jpg")
    assert names(found(tmp_path, "a[1]*.jpg")) == ["a[1]*"]


def test_equal_names_are_numbered_in_upper_or_lower_case(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "b/x.png", "c/X.jpg", "d/x-2.jpg")
    sources = found(tmp_path, "a/x.jpg", "b/x.png", "c/X.jpg", "d/x-2.jpg")
    assert names(sources)[:2] == ["x", "x-2"]
    assert len({name.casefold() for name in names(sources)}) == 4


def test_a_number_in_the_name_of_results_is_not_in_that_of_the_file(tmp_path: Path) -> None:
    touch(tmp_path, "in/below/a.jpg", "in/below/a.png")
    sources = found(tmp_path, "in")
    assert names(sources) == ["below/a", "below/a-2"]
    assert [source.file_name for source in sources] == ["below/a.jpg", "below/a.png"]


def test_a_file_whose_name_begins_with_a_tilde_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "~nobody-of-this-name.jpg")
    monkeypatch.chdir(tmp_path)
    (source,) = find_sources(["~nobody-of-this-name.jpg"], tmp_path / "out")
    assert source.name == "~nobody-of-this-name"


def test_an_image_named_classes_leaves_the_name_to_yolo_s_list(tmp_path: Path) -> None:
    touch(tmp_path, "a/Classes.jpg", "a/b/classes.jpg")
    assert names(found(tmp_path, "a")) == ["Classes-2", "b/classes"]


def test_a_video_s_frames_are_in_no_folder_of_images(tmp_path: Path) -> None:
    touch(tmp_path, "all/clip/000000.jpg", "clip.mp4")
    assert names(found(tmp_path, "clip.mp4", "all")) == ["clip-2", "clip/000000"]


def test_results_are_no_sources(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "out/drawn/1.jpg")
    assert names(find_sources([str(tmp_path)], tmp_path / "out")) == ["1"]


@pytest.mark.parametrize("text", ["photos", "photos/1.jpg", "photos/*.jpg"])
def test_the_folder_of_results_is_not_that_of_the_sources(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "photos/1.jpg")
    with pytest.raises(UserError, match="name another folder"):
        find_sources([str(tmp_path / text)], tmp_path / "photos")


def test_names_are_short_printable_text(tmp_path: Path) -> None:
    touch(tmp_path, "a\nb.jpg", f"{'é' * 125}.jpg")
    broken, long = found(tmp_path, "a\nb.jpg", f"{'é' * 125}.jpg")
    assert (broken.name, broken.shown.endswith("a_b.jpg")) == ("a_b", True)
    assert len(long.name.encode()) == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gone.jpg", "no such file or folder"),
        ("~nobody-of-this-name/a.jpg", "no such file or folder"),
        ("http://[::1/a.jpg", "no valid URL"),
        ("*.jpg", "no image or video matches"),
        (".", "no image there"),
        ("http://a.example/1.jpg", "only with --allow-urls"),
        ("ftp://a.example/1.jpg", "begin with http"),
        ("file:///etc/passwd", "begin with http"),
    ],
)
def test_what_names_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        find_sources([text], tmp_path / "out")


def test_urls_and_cameras(tmp_path: Path) -> None:
    texts = ["https://a.example/b/c%20d.png?size=2", "https://a.example", "camera:3"]
    sources = find_sources(texts, tmp_path, allow_urls=True)
    assert names(sources) == ["c d", "a", "camera-3"]
    assert [source.kind for source in sources] == ["url", "url", "camera"]
