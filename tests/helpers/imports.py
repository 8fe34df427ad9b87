"""Which modules of the project a Python file needs, read from its import statements and theirs."""

import ast
from collections.abc import Collection
from pathlib import Path

PACKAGES = ("ssd", "stages", "cli")


def needed_modules(file: Path, root: Path, without: Collection[str] = ()) -> set[str]:
    """Paths, relative to `root`, of `file` and of every module of the project that it imports, however deep.

    Imports inside functions count. Empty `__init__.py` files and those of a docstring alone do not, nor do
    the modules of `without` and what only these import.
    """
    left_out = {root / name for name in without}
    seen, waiting = {file}, [file]
    while waiting:
        for found in imports_of(waiting.pop(), root) - seen - left_out:
            seen.add(found)
            waiting.append(found)
    return {str(path.relative_to(root)) for path in seen if not _says_nothing(path)}


def imports_of(file: Path, root: Path) -> set[Path]:
    """Files of the project that `file` imports itself, with the `__init__.py` of their folders."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and node.level == 0, "imports are absolute here"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    parents = {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)}
    files = (_file(name, root) for name in parents if name.split(".")[0] in PACKAGES)
    return {path for path in files if path is not None}


def _file(name: str, root: Path) -> Path | None:
    path = root.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _says_nothing(path: Path) -> bool:
    body = ast.parse(path.read_text()).body
    return path.name == "__init__.py" and all(isinstance(node, ast.Expr) for node in body)
