"""Bytes that wait in a file: they come back as they were, and the file has no name."""

from pathlib import Path

from ssd.prepare.spool import Spool


def test_pieces_come_back_from_their_places_after_the_spool_is_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "folder")
    pieces = [b"first", b"", b"second" * 10_000]
    places = [spool.add(piece) for piece in pieces]
    view = spool.view()
    del spool
    assert [bytes(view[place]) for place in places] == pieces
    assert list((tmp_path / "folder").iterdir()) == []


def test_nothing_comes_back_as_nothing(tmp_path: Path) -> None:
    assert bytes(Spool(tmp_path).view()) == b""
