"""The command `ssd`. Exit codes: 0 success, 1 failure, 2 a mistake that the user can mend, 130 Ctrl-C."""

import logging
import os
import sys
from collections.abc import Sequence

import typer

from cli.audit import audit
from cli.bench import bench
from cli.compare import compare
from cli.demo import demo
from cli.evaluate import evaluate
from cli.export import export
from cli.info import info
from cli.predict import predict
from cli.serve import serve
from cli.verify import verify
from ssd.errors import LostProcessError, UserError, storage_errors_explained

app = typer.Typer(
    name="ssd",
    help="Detect objects with a trained model, and ask what it is, how good it is, and what it gets wrong.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (predict, evaluate, compare, audit, demo, serve, export, verify, info, bench):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; print what the user can mend in one line.

    Args:
        arguments: None takes those of the process.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ssd").setLevel(logging.INFO)
    try:
        with storage_errors_explained():
            app(arguments, prog_name="ssd")
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except LostProcessError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of a pipe, as `head`, has gone; the interpreter would write once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
