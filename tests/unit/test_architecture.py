"""The arrows of CONTRIBUTING.md: which folder may import which. Lazy imports count too."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import ROOT
from support.imports import find_circle, find_modules, is_generated, read_import_graph, read_imports

# Left: a folder or a file. A file belongs to the longest name that matches it: serving/gateway/http.py to
# "serving.gateway", serving/app.py to "serving". Right: everything that its files may import, except each other and
# `COMMON`. From the other package a row names single files, not folders.
SERVICES = {
    "drpo_rewards": {"api", "client", "operations"},  # the public face, __init__.py
    "__main__": {"cli", "process"},
    "cli": {
        "serving", "serving.config", "serving.operate", "rewards", "rewards.base",
        "client", "ranking", "operations", "cluster", "settings", "process", "screen", "usage", "api",
    },
    "serving": {  # start, app, ...
        "serving.gateway", "serving.replica", "serving.config", "serving.limits", "serving.ports", "cluster",
    },
    "serving.operate": {"serving.config", "serving.ports", "rewards", "rewards.files", "cluster", "process", "api"},
    "serving.gateway": {
        "serving.replica", "serving.config", "serving.limits", "serving.ports", "operations", "ranking", "wire", "v1",
        "cluster", "api",
    },
    "serving.replica": {"serving.config", "rewards", "rewards.base", "cluster", "api"},
    "serving.config": {"serving.config_mistakes", "serving.limits", "settings", "api"},
    "serving.config_mistakes": {"settings", "api"}, "serving.limits": {"settings", "api"},
    "serving.ports": set(),
    "client": {"client.transports", "client.retries", "client.background", "operations", "api"},
    "client.transports": {"client.proxies", "client.retries", "operations", "wire", "v1", "cluster", "api"},
    "client.proxies": set(), "client.retries": set(), "client.background": set(),
    "operations": {"ranking", "wire", "v1", "api"},
    "ranking": {"api"},
    "rewards": {"rewards.base", "rewards.files", "rewards.shared", "ranking", "settings", "api"},
    "rewards.judge": {"rewards.base", "rewards.files", "rewards.shared"},
    "rewards.shared": {"rewards.base", "rewards.files", "client.proxies", "client.retries", "client.background"},
    "rewards.files": set(),
    "rewards.base": {"api"},
    "wire": {"v1", "api"}, "v1": set(), "cluster": set(), "settings": set(), "api": set(),
    "errors": set(), "findings": set(), "process": {"screen"}, "screen": set(), "reading": set(), "usage": set(),
}  # fmt: skip

TRAINER = {
    "drpo": set(),  # __init__.py
    "__main__": {"cli", "drpo_rewards.process"},
    "cli": {
        "checks", "paper", "evaluation", "report", "profiling", "tracking", "cluster", "training", "training.build",
        "training.choices", "generators", "shapes", "shapes.cli", "method.objectives", "data", "config",
        "drpo_rewards.serving.start", "drpo_rewards.client", "drpo_rewards.cluster.local_ray", "drpo_rewards.errors",
        "drpo_rewards.process", "drpo_rewards.screen", "drpo_rewards.usage",
    },
    "checks": {
        "training", "training.build", "training.memory", "training.choices", "training.mixture",
        "training.reward_gradient",
        "method.objectives", "method.features", "generators", "shapes", "shapes.variety", "tracking", "data", "config",
        "drpo_rewards.client", "drpo_rewards.api.contract", "drpo_rewards.api.metadata", "drpo_rewards.api.suggestions",
        "drpo_rewards.errors", "drpo_rewards.cluster.environment", "drpo_rewards.cluster.local_ray",
        "drpo_rewards.serving.config", "drpo_rewards.serving.operate.declared", "drpo_rewards.serving.operate.doctor",
        "drpo_rewards.serving.operate.surroundings",
    },
    "paper": {"evaluation", "training", "config", "drpo_rewards.api.suggestions", "drpo_rewards.errors",
              "drpo_rewards.settings.files"},
    "report": {"evaluation", "training", "shapes", "config"},
    "profiling": {
        "training", "training.choices", "training.parts", "method.objectives", "data", "config", "drpo_rewards",
        "drpo_rewards.api.contract", "drpo_rewards.api.question", "drpo_rewards.api.scores", "drpo_rewards.operations",
        "drpo_rewards.operations.base", "drpo_rewards.operations.rank",
    },
    "evaluation": {
        "training", "training.build", "method.features", "generators", "shapes", "shapes.variety", "data", "config",
        "drpo_rewards", "drpo_rewards.client", "drpo_rewards.api.contract", "drpo_rewards.api.metadata",
        "drpo_rewards.api.suggestions",
    },
    "tracking": {"training", "config", "drpo_rewards.api.suggestions"},
    "watching": {
        "evaluation", "training", "method.features", "generators", "shapes.variety", "data", "config",
        "drpo_rewards.client", "drpo_rewards.api.contract",
    },
    "cluster": {
        "watching", "evaluation", "training", "training.build", "training.choices", "training.parts",
        "training.mixture", "data", "config", "drpo_rewards.cluster.environment", "drpo_rewards.cluster.local_ray",
    },
    "training": {
        "training.reward_gradient", "method.objectives", "method.features", "generators", "shapes", "data", "transfer",
        "config", "drpo_rewards", "drpo_rewards.client", "drpo_rewards.client.background", "drpo_rewards.api.contract",
        "drpo_rewards.errors",
    },
    "training.choices": {"training", "training.memory", "generators", "config"},
    "training.mixture": {"training", "training.choices", "config", "drpo_rewards.api.contract", "drpo_rewards.errors"},
    "training.memory": {
        "training", "training.build", "training.reward_gradient", "method.objectives", "generators", "shapes", "config",
    },
    "training.parts": {
        "training", "training.build", "training.reward_gradient", "method.objectives", "method.features", "generators",
        "data", "config",
    },
    "training.build": {
        "training", "training.reward_gradient", "training.speed", "method.objectives", "method.features", "generators",
        "shapes", "config",
    },
    "training.reward_gradient": {  # the only file that builds rewards
        "training", "method.objectives", "generators", "shapes", "drpo_rewards.rewards", "drpo_rewards.rewards.base",
        "drpo_rewards.errors",
    },
    "training.speed": {"generators", "config"},
    "generators": {"transfer", "config", "drpo_rewards.api.suggestions"},
    "method.objectives": {"method.drift", "transfer", "config.section"},
    "method.features": {"method.drift", "generators.base", "config.section"},
    "method.drift": set(), "method": set(),
    "shapes.cli": {"shapes.pretrain", "shapes", "checks"},
    "shapes.pretrain": {"method.features", "shapes", "drpo_rewards.api.shapes"},
    "data.prompts.sources.shapes": {"data", "shapes", "config"},
    "data": {"config", "drpo_rewards.api.images", "drpo_rewards.errors"},
    "shapes.variety": {"drpo_rewards.rewards.geneval.rules", "drpo_rewards.rewards.geneval.shapes_detector"},
    "shapes.served_clip": {"shapes", "drpo_rewards.rewards.clip", "drpo_rewards.rewards.files.model_files"},
    "shapes": {"drpo_rewards.api.shapes"},
    "presets": set(), "transfer": set(),
    "config": {
        "config.section", "drpo_rewards.api.suggestions", "drpo_rewards.errors", "drpo_rewards.settings.files",
        "drpo_rewards.settings.values", "drpo_rewards.settings.yaml_text",
    },
    "config.section": {"drpo_rewards.settings.section"},
    "errors": set(),
}  # fmt: skip

PACKAGES = {"drpo_rewards": ROOT / "services" / "drpo_rewards", "drpo": ROOT / "trainer" / "drpo"}


def full_name(package: str, name: str) -> str:
    return name if name.split(".")[0] in PACKAGES else f"{package}.{name}"


COMMON = {"errors", "drpo_rewards.findings", "drpo_rewards.reading"}
"""What every file may import."""

ARROWS = {
    full_name(package, folder): {full_name(package, other) for other in others | COMMON}
    for package, table in (("drpo_rewards", SERVICES), ("drpo", TRAINER))
    for folder, others in table.items()
}


def folder_of(module: str, arrows: Mapping[str, set[str]]) -> str | None:
    """The longest name in the table that matches a module. The name of a package matches only its __init__.py."""
    parents = [module.rsplit(".", count)[0] for count in range(module.count("."))]
    return next((name for name in parents if name in arrows), module if module in arrows else None)


def find_forbidden_imports(
    graph: Mapping[str, set[str]], files: Mapping[str, Path], arrows: Mapping[str, set[str]]
) -> list[str]:
    """An error message for every import that the table does not allow, and for every file that is not in it."""
    errors = []
    for module, imported in sorted(graph.items()):
        file, folder = files[module], folder_of(module, arrows)
        if folder is None:
            errors.append(f"{file} is in no row of the table in tests/unit/test_architecture.py")
            continue
        allowed = arrows[folder]
        errors += [
            f"{file} imports {other}: {folder} may only import {', '.join(sorted(allowed)) or 'nothing'}"
            for other in sorted(imported)
            if other not in allowed
            and (other.split(".")[0] != module.split(".")[0] or folder_of(other, arrows) not in {folder, *allowed})
        ]
    return errors


def test_every_import_follows_an_arrow() -> None:
    files = {name: file.relative_to(ROOT) for name, file in find_modules(*PACKAGES.values()).items()}
    forbidden = find_forbidden_imports(read_import_graph(*PACKAGES.values()), files, ARROWS)
    assert not forbidden, "\n".join(forbidden)


def test_forbidden_imports_are_found() -> None:
    arrows = {
        "our.high": {"our.high.middle"},
        "our.high.middle": {"our.low.file"},
        "our.low": set(),
        "our.low.folder": {"our.low"},
    }
    graph = {
        "our.high": {"our.high.middle.one"},
        "our.high.middle.one": {"our.high.middle.two", "our.low.file"},
        "our.high.middle.two": {"our.high", "our.low.other"},
        "our.low.folder.file": {"our.low.other"},
        "our.low.other": {"our.low.file", "our.low.folder.file"},
        "our.new.file": {"our.low.file"},
    }
    files = {name: Path(f"{name.replace('.', '/')}.py") for name in graph}
    assert find_forbidden_imports(graph, files, arrows) == [
        "our/high/middle/two.py imports our.high: our.high.middle may only import our.low.file",
        "our/high/middle/two.py imports our.low.other: our.high.middle may only import our.low.file",
        "our/low/other.py imports our.low.folder.file: our.low may only import nothing",
        "our/new/file.py is in no row of the table in tests/unit/test_architecture.py",
    ]


def test_every_name_in_the_table_exists() -> None:
    modules = find_modules(*PACKAGES.values())
    named = set(ARROWS).union(*ARROWS.values())
    assert named <= modules.keys(), f"there are no {', '.join(sorted(named - modules.keys()))}"


def test_services_never_import_the_trainer() -> None:
    forbidden = {
        f"{name} imports {other}"
        for name, file in find_modules(PACKAGES["drpo_rewards"]).items()
        for other in read_imports(file, find_modules(*PACKAGES.values()))
        if other.split(".")[0] == "drpo"
    }
    assert not forbidden


def test_no_circles_between_files() -> None:
    circle = find_circle(*PACKAGES.values())
    assert not circle, " imports ".join(str(file.relative_to(ROOT)) for file in circle)


@pytest.mark.parametrize(
    ("sources", "circle"),
    [
        pytest.param(
            {
                "__init__": "",
                "one": "from planted.two import second",
                "two": "import os\nimport planted.three as three",
                "three": "from planted import one",
                "four": "from planted import one, two, three",
            },
            {"one", "two", "three"},
            id="plain",
        ),
        pytest.param(
            {
                "__init__": "",
                "base": "def choose():\n    if True:\n        from planted.backend import Backend\n    return Backend",
                "backend": "from planted.base import Base",
            },
            {"base", "backend"},
            id="lazy import",
        ),
        pytest.param(
            {
                "__init__": "from planted.one import first",
                "one": "from planted.two import second",
                "two": "from planted import first",
            },
            {"__init__", "one", "two"},
            id="name from the package's __init__",
        ),
        pytest.param(
            {
                "__init__": "from planted.one import first",
                "one": "from planted import two\nimport planted.two",
                "two": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from planted.one import first",
            },
            set(),
            id="none: submodules and type checkers",
        ),
    ],
)
def test_a_planted_circle_is_found(tmp_path: Path, sources: dict[str, str], circle: set[str]) -> None:
    package = tmp_path / "planted"
    package.mkdir()
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)
    found = find_circle(package)
    assert set(found) == {package / f"{name}.py" for name in circle}
    assert found[:1] == found[-1:]


def test_a_relative_import_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "relative.py"
    file.write_text("from . import neighbour")
    with pytest.raises(AssertionError, match=r"relative\.py:1: write imports in full"):
        read_imports(file, {})


def test_test_files_have_different_names() -> None:
    """The folders of tests are no packages, so pytest cannot collect two files of one name in one run."""
    counts = Counter(file.name for file in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in counts.items() if count > 1] == []


def test_files_stay_short() -> None:
    """Long files are hard to read from top to bottom. Generated files do not count."""
    folders = ("services", "trainer", "tests", "deploy", "protos")
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py")) if not is_generated(file)]
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    assert not {name: count for name, count in lines.items() if count > 350}
    assert statistics.median(lines.values()) <= 200


def test_the_functions_in_the_walks_of_contributing_exist() -> None:
    """Every numbered line of "Two walks" begins with a file and one of its functions or methods."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    request, step = text.partition("## Two walks")[2].partition("\n## ")[0].split("### ")[1:]
    for package, walk, most in (("drpo_rewards", request, 9), ("drpo", step, 12)):
        stops = re.findall(r"^\d+\. `([^`]+)` `([^`]+)`", walk, re.MULTILINE)
        assert 5 < len(stops) <= most
        for path, name in stops:
            assert name in defined_names(PACKAGES[package] / path), f"{path} has no {name}"


def defined_names(file: Path) -> set[str]:
    """The functions of a file, and its methods as Class.method."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}.{method.name}" for method in methods}
    return names


def test_drift_is_pure_tensor_code() -> None:
    imported = read_imports(PACKAGES["drpo"] / "method" / "drift.py", find_modules(PACKAGES["drpo"]))
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) <= {"torch", "drpo"}
    assert {name for name in imported if name.startswith("drpo.")} <= {"drpo.errors"}


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
    """Checked in a fresh interpreter, because this one has imported everything."""
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    python = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert python.returncode == 0, python.stderr
    assert python.stdout.strip() == "[]"
