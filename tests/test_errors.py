"""UserError carries what has to change, through processes too; errors of disks become one."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from ssd.errors import UserError, storage_errors_explained


def test_the_message_begins_with_the_key() -> None:
    error = UserError("found 3", key="train.devices")
    assert str(error) == "train.devices: found 3"
    assert (error.key, error.path) == ("train.devices", None)
    assert str(UserError("no such file")) == "no such file"


def test_another_process_hands_it_on_whole() -> None:
    error = pickle.loads(pickle.dumps(UserError("found 3", key="train.devices", path="a/b")))
    assert (str(error), error.key, error.path) == ("train.devices: found 3", "train.devices", Path("a/b"))


def test_of_the_traceback_of_a_loading_process_the_last_line_counts() -> None:
    text = "Caught UserError in worker 0.\nTraceback:\n  x\nssd.errors.UserError: train.cache: too large\n"
    assert str(UserError(text)) == "train.cache: too large"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "MB free); make room and run again"),
        (errno.EDQUOT, "; make room and run again"),
        (errno.EFBIG, "; the largest size of a file here"),
        (errno.EACCES, "; this user needs the right to read and write there"),
        (errno.EROFS, "; this user needs the right to read and write there"),
        (errno.EIO, "; the disk may be failing"),
        (errno.ENAMETOOLONG, "; shorten it"),
        (errno.ENOTDIR, "; move away the file or folder in its place"),
    ],
)
def test_what_is_wrong_with_the_disk_is_one_line_with_the_path(
    number: int, remedy: str, tmp_path: Path
) -> None:
    path = tmp_path / "not there/models/model.pt"
    with pytest.raises(UserError) as explained, storage_errors_explained():
        raise OSError(number, os.strerror(number), str(path))
    assert str(explained.value).startswith(f"{path}: {os.strerror(number)}")
    assert remedy in str(explained.value) and "\n" not in str(explained.value)


def test_an_error_that_names_no_file_names_the_folder_of_work() -> None:
    with pytest.raises(UserError, match=f"^{Path.cwd()}: Input/output error; "), storage_errors_explained():
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_errors_of_the_program_keep_their_traceback() -> None:
    for error in (FileNotFoundError(errno.ENOENT, "No such file"), OSError("no number"), KeyError("x")):
        with pytest.raises(type(error)) as kept, storage_errors_explained():
            raise error
        assert kept.value is error
