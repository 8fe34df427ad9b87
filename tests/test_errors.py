"""UserError carries what has to change, through processes too; errors of disks become one."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from ssd.errors import UserError, first_line, is_out_of_memory, storage_errors_explained


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


def test_of_a_message_of_several_lines_the_first_is_said_and_of_none_the_type() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(EOFError()) == "EOFError"
    assert first_line(ValueError("x" * 999)) == "x" * 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"a": Path("x")},
            "Unsupported global: GLOBAL pathlib.PosixPath was not an allowed global by default",
        ),
        (b"\x80\x02\x95.", "Unsupported operand 149"),
    ],
)
def test_of_torch_s_message_about_a_pickle_not_the_advice_to_run_it_is_said(
    content: object, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(pickle.UnpicklingError) as caught:
        torch.load(file, weights_only=True)
    assert first_line(caught.value) == said


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("unable to mmap 52922199 bytes from file </a>: Cannot allocate memory (12)"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("PytorchStreamReader failed locating file data.pkl: file not found"), False),
        (EOFError(), False),
    ],
)
def test_memory_that_ran_out_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


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
