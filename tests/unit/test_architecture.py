"""The arrows of CONTRIBUTING.md: which part may know which other one. Read from the source, lazy imports included."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support import ROOT

PACKAGES = {"drpo": ROOT / "trainer" / "drpo", "drpo_rewards": ROOT / "services" / "drpo_rewards"}


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module of a package; generated stubs are left out."""
    root = PACKAGES[package]
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not file.name.endswith(("_pb2.py", "_pb2_grpc.py")):
            yield name, file


def imported(file: Path) -> set[str]:
    """Dotted names of every module that a file imports, anywhere in it.

    `from package import name` counts as `package.name` where that is a module of ours. Imports for type checkers do not
    count.
    """
    tree = ast.parse(file.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write imports in full, not relative ones"
            assert node.module is not None
            submodules = {
                f"{node.module}.{alias.name}" for alias in node.names if is_ours(f"{node.module}.{alias.name}")
            }
            found |= submodules or {node.module}
    return found


def is_ours(name: str) -> bool:
    package, *rest = name.split(".")
    if package not in PACKAGES:
        return False
    path = PACKAGES[package].joinpath(*rest)
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports_of(package: str) -> dict[str, set[str]]:
    return {name: imported(file) for name, file in modules(package)}


def part(name: str) -> str:
    """The folder or file directly below a package: drpo.method.features.latent_mae belongs to drpo.method.features."""
    return ".".join(name.split(".")[:2])


def test_services_never_know_the_trainer() -> None:
    guilty = {
        f"{name} imports {other}"
        for name, others in imports_of("drpo_rewards").items()
        for other in others
        if other.split(".")[0] == "drpo"
    }
    assert not guilty


def test_the_trainer_knows_only_the_contract_and_the_client() -> None:
    """And how a Ray is kept to its machine. The command line is where both meet: it alone may start the service."""
    allowed = {
        "drpo_rewards.api.contract",
        "drpo_rewards.api.suggestions",
        "drpo_rewards.client",
        "drpo_rewards.client.background",
        "drpo_rewards.cluster.environment",
        "drpo_rewards.errors",
        "drpo_rewards.cluster.local_ray",
    }
    guilty = {
        f"{name} imports {other}"
        for name, others in imports_of("drpo").items()
        for other in others
        if other.split(".")[0] == "drpo_rewards"
        and other not in allowed
        and not (name.startswith("drpo.cli") and part(other) == "drpo_rewards.serving")
    }
    assert not guilty


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_circles_between_the_parts_of_a_package(package: str) -> None:
    arrows: dict[str, set[str]] = {}
    for name, others in imports_of(package).items():
        ours = {part(other) for other in others if other.startswith(f"{package}.")}
        arrows.setdefault(part(name), set()).update(ours - {part(name)})
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")


def test_drift_is_pure_tensor_code() -> None:
    outside = {name.split(".")[0] for name in imported(PACKAGES["drpo"] / "method" / "drift.py")} - set(
        sys.stdlib_module_names
    )
    assert outside <= {"torch", "drpo"}
    ours = {name for name in imported(PACKAGES["drpo"] / "method" / "drift.py") if name.startswith("drpo.")}
    assert ours <= {"drpo.errors"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("drpo_rewards.api.contract", ("torch", "ray", "grpc", "fastapi", "httpx")),
        ("drpo_rewards.client", ("torch", "ray", "fastapi", "transformers")),
        ("drpo_rewards.rewards", ("torch", "ray", "transformers", "safetensors")),
        ("drpo.config", ("torch", "ray", "diffusers", "transformers")),
        ("drpo.cli", ("torch", "ray", "diffusers", "transformers", "matplotlib")),
    ],
)
def test_importing_it_stays_light(module: str, heavy: tuple[str, ...]) -> None:
    """In a fresh interpreter, because this one has imported everything."""
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"
