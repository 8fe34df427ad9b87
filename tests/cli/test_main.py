"""What all commands of `ssd` have in common: help, typos, exit codes, no heavy import before it is needed."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from default_params import REPOSITORY
from waiting import Ended

from cli.main import app

Run = Callable[..., Ended]
COMMANDS = sorted(str(command.callback.__name__) for command in app.registered_commands if command.callback)
LIGHT = {"ssd.errors", "typer", "cli"}
"""Beside Python's own: what does not import torch and the like."""


def test_help_lists_the_commands(run_ssd: Run) -> None:
    ended = run_ssd("--help")
    assert ended.code == 0
    assert all(f"\n  {name} " in ended.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(run_ssd: Run, name: str) -> None:
    ended = run_ssd(name, "-h")
    assert ended.code == 0
    assert f"Usage: ssd {name}" in ended.stdout


def test_a_typo_is_answered_with_what_was_meant(run_ssd: Run) -> None:
    ended = run_ssd("evalute")
    assert ended.code == 2
    assert "Did you mean 'evaluate'" in ended.stderr


def test_a_missing_model_is_one_line_and_exit_code_2(run_ssd: Run) -> None:
    ended = run_ssd("evaluate", "gone.pt")
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr == "gone.pt: no such file; needed is a model.pt or an exported file\n"


@pytest.mark.parametrize("name", ["predict", "serve", "demo", "evaluate", "compare", "audit"])
def test_an_unknown_device_is_refused_at_once(run_ssd: Run, name: str) -> None:
    ended = run_ssd(name, "gone.pt", "gone.pt", "--device", "banana")
    assert ended.code == 2
    assert "'banana' is not one of 'auto', 'cpu', 'cuda'" in ended.stderr


@pytest.mark.parametrize(
    "command", [("evaluate", "gone.pt"), ("compare", "a.pt", "b.pt"), ("audit", "gone.pt")]
)
def test_a_file_in_the_place_of_out_is_named_before_the_model_is_opened(
    run_ssd: Run, command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "in"):
        ended = run_ssd(*command, "--out", out)
        assert (ended.code, ended.stdout) == (2, "")
        assert ended.stderr == f"--out {out}: {tmp_path / 'file'} is a file; name a folder\n"


def test_a_tilde_that_is_no_home_folder_is_a_part_of_the_name(run_ssd: Run) -> None:
    ended = run_ssd("evaluate", "~no_such_user.pt")
    assert ended.code == 2
    assert ended.stderr.startswith("~no_such_user.pt: no such file; ")


def test_there_is_no_negative_number_of_resamples(run_ssd: Run) -> None:
    ended = run_ssd("evaluate", "gone.pt", "--resamples", -5)
    assert ended.code == 2
    assert "Invalid value for '--resamples'" in ended.stderr


@pytest.mark.parametrize("module", sorted(REPOSITORY.glob("cli/*.py")), ids=lambda path: path.stem)
def test_the_modules_that_help_reads_import_nothing_heavy(module: Path) -> None:
    """`ssd --help` and a typo are answered at once."""
    main = ast.parse((REPOSITORY / "cli/main.py").read_text())
    listed = {node.module for node in main.body if isinstance(node, ast.ImportFrom)}
    if f"cli.{module.stem}" not in listed | {"cli.main", "cli.options"}:
        return
    for node in ast.parse(module.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name in LIGHT or name.split(".")[0] in {*LIGHT, *sys.stdlib_module_names}, (module, name)


def test_an_onnx_file_is_verified_without_torch(tmp_path: Path) -> None:
    """Which takes seconds to import."""
    (tmp_path / "ssd.onnx").write_bytes(b"no model")
    code = "import sys\nfrom cli.main import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "verify", str(tmp_path / "ssd.onnx")]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.split()[-1]) == (1, "False"), ended
