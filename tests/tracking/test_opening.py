"""What a new run says of the code that it comes from."""

import subprocess
from pathlib import Path

import pytest

from ssd.tracking import opening
from stages import revision


def test_a_run_is_dirty_by_new_code_and_not_by_a_changed_dvc_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text("of the commit")
    commit = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "x"]
    for command in (["git", "init", "-q"], ["git", "add", "dvc.lock"], commit):
        subprocess.run(command, check=True)
    (tmp_path / "dvc.lock").write_text("of a stage that has run")
    assert opening.git_state()["git_dirty"] == "false"
    (tmp_path / "ssd").mkdir()
    (tmp_path / "ssd/new.py").write_text("")
    assert opening.git_state()["git_dirty"] == "true"


def test_the_tracker_and_exported_files_have_one_rule_for_what_is_dirty() -> None:
    assert opening.INPUTS == revision.INPUTS
