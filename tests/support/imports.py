"""Which files of a package import which others, read from their source. Imports inside functions count."""

from __future__ import annotations

import ast
from collections.abc import Container
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


def find_modules(*packages: Path) -> dict[str, Path]:
    """The dotted name and the file of every module in these package folders, except generated gRPC stubs."""
    found = {}
    for package in packages:
        for file in sorted(package.rglob("*.py")):
            parts = file.relative_to(package.parent).with_suffix("").parts
            if not is_generated(file):
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def is_generated(file: Path) -> bool:
    return file.name.endswith(("_pb2.py", "_pb2_grpc.py"))


def read_imports(file: Path, modules: Container[str]) -> set[str]:
    """Dotted names of the modules that a file imports, anywhere in it but under `if TYPE_CHECKING`.

    `from package import name` imports `package.name` where that is one of `modules`, and else `package`, that is its
    `__init__.py`. `import package.module` does not count as an import of `package`.

    Raises:
        AssertionError: the file has a relative import.
    """
    tree = ast.parse(file.read_text())
    for_type_checkers = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_type_checkers:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write imports in full, not relative ones"
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                names.add(submodule if submodule in modules else node.module)
    return names


def read_import_graph(*packages: Path) -> dict[str, set[str]]:
    """Each module of these package folders, with those of the same folders that it imports."""
    modules = find_modules(*packages)
    return {name: read_imports(file, modules) & modules.keys() for name, file in modules.items()}


def find_circle(*packages: Path) -> list[Path]:
    """Files that import each other in a circle, or an empty list.

    Each file imports the next one. The last file is the first again.
    """
    try:
        TopologicalSorter(read_import_graph(*packages)).prepare()
    except CycleError as error:
        modules = find_modules(*packages)
        return [modules[name] for name in reversed(error.args[1])]
    return []
