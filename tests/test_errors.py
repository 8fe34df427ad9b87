"""UserError carries what has to change, through processes too."""

import pickle
from pathlib import Path

from ssd.errors import UserError


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
