"""What a folder of results deletes, and what it does not."""

from pathlib import Path

from ssd.inference.results_folder import LIST, ResultsFolder


def test_nothing_outside_the_folder_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("photos/a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    folder = tmp_path / "drawn"
    ResultsFolder(folder).write("c.jpg", b"")
    (folder / "photos").symlink_to(tmp_path / "photos")
    with (folder / LIST).open("a") as file:
        file.write(f"photos/a.jpg\n../b.jpg\n{tmp_path / 'b.jpg'}\n")
    ResultsFolder(folder)
    assert [file.name for file in folder.iterdir()] == ["photos"]
    assert (tmp_path / "photos/a.jpg").is_file()
    assert (tmp_path / "b.jpg").is_file()


def test_a_file_that_was_listed_and_not_written_is_no_obstacle(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path / "drawn")
    results.place("below/a.mp4")
    ResultsFolder(tmp_path / "drawn")
    assert list((tmp_path / "drawn").iterdir()) == []
