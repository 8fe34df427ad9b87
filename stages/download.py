"""Stage 1: bring the data set to data/raw/<source>."""

import sys
from pathlib import Path

from ssd.params import Params
from ssd.source.download import download
from stages.check import stop_if_incomplete
from stages.command import command, workspace


@command
def main(params: Params) -> None:
    stop_if_incomplete(params)
    download(params.data, Path("data/raw"), workspace())


if __name__ == "__main__":
    main(sys.argv[1:])
