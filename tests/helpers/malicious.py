"""An object whose unpickling runs code, as anybody can put it into a file that pickle reads."""

import pickle
from pathlib import Path


class Malicious:
    """Creates `trace` when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def check_it_works(folder: Path) -> None:
    """Fail unless plain pickle runs it: a test of what does not run it would prove nothing."""
    pickle.loads(pickle.dumps(Malicious(folder / "control")))
    assert (folder / "control").exists()
