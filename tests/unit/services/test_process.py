"""Where a command stands, and what hides its modules, is told at once by both command lines."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from drpo_rewards.process import explain_missing, find_hidden_module
from drpo_rewards.serving.operate.surroundings import check_surroundings

COMMANDS = [["-m", "drpo", "runs"], ["-m", "drpo_rewards", "doctor"], ["-m", "drpo_rewards", "serve"]]
HIDING = [("ray.py", "the installed package ray"), ("random.py", "Python's own module random"),
          ("torch/__init__.py", "the installed package torch"), ("yaml.py", "the installed package yaml"),
          ("typing.py", "Python's own module typing")]  # fmt: skip


def run(command: list[str], folder: Path, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    started = ["bash", "-c", f'{shell} "$0" "$@"', sys.executable, *command]
    return subprocess.run(
        started, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize("command", COMMANDS[:2], ids=" ".join)
def test_a_folder_that_was_removed(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    ended = run(command, tmp_path / "gone", "rmdir ../gone;")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith(
        "the current folder has been removed; go to one that is there with cd"
    )


@pytest.mark.parametrize(("name", "hidden"), HIDING)
@pytest.mark.parametrize("command", COMMANDS[::2], ids=" ".join)
def test_a_file_with_the_name_of_a_module(command: list[str], name: str, hidden: str, tmp_path: Path) -> None:
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("1 / 0")
    paths = os.pathsep.join([str(tmp_path / "mine"), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = run(command, tmp_path, PYTHONPATH=paths)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error")
    assert f"{path} hides {hidden}; rename it" in line


def test_streams_that_were_closed_are_opened(tmp_path: Path) -> None:
    """Otherwise the next file would be number 1, and get what libraries print."""
    code = "from drpo_rewards.process import open_standard_streams as f; f(); f(); file = open('made', 'w'); "
    code += (
        "import os, subprocess; os.write(1, b'x'); subprocess.run(['echo', 'y']); file.write(str(file.fileno() > 2))"
    )
    ended = run(["-c", code], tmp_path, "exec 0<&- 1>&- 2>&-;")
    assert (ended.returncode, (tmp_path / "made").read_text()) == (0, "True")


def _sources(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


@pytest.mark.parametrize(("package", "status"), [("drpo", 1), ("drpo_rewards", 2)])
def test_a_python_without_the_packages(package: str, status: int, tmp_path: Path) -> None:
    """As with the system's Python in a checkout: one line says which Python lacks what."""
    sources = os.pathsep.join(str(_sources(name)) for name in ("drpo", "drpo_rewards"))
    ended = run(["-S", "-m", package, "--help"], tmp_path, PYTHONPATH=sources)
    assert ended.returncode == status
    (line,) = ended.stderr.splitlines()
    install = f"{sys.executable} -m pip install 'drpo[all]' installs what is needed"
    assert line.endswith(f" is not installed for {sys.executable}; {install}")


def test_a_package_that_is_too_old() -> None:
    error = ModuleNotFoundError("No module named 'numpy.new'", name="numpy.new")
    assert explain_missing(error).startswith("numpy.new is too old, or damaged; ")
    assert explain_missing(ModuleNotFoundError("no", name="drpo_rewards.x")) == ""


def test_what_hides_nothing_that_is_needed(tmp_path: Path) -> None:
    """A folder without `__init__.py`, modules that nobody imports, and what pip has put into a folder of its own."""
    (tmp_path / "datasets").mkdir()
    installed = tmp_path / "by_pip"
    (installed / "yaml-9.dist-info").mkdir(parents=True)
    for file in (tmp_path / "test.py", tmp_path / "rewards.py", installed / "yaml.py"):
        file.write_text("")
    assert find_hidden_module([str(tmp_path), str(installed), str(tmp_path / "none")]) is None


def test_the_current_folder_of_rays_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command itself does not look there, but they do."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yaml.py").write_text("1 / 0")
    (found,) = [one for one in check_surroundings() if one.about == "the current folder"]
    assert (found.state, found.found.split(";")[0]) == (
        "wrong",
        f"{tmp_path / 'yaml.py'} hides the installed package yaml",
    )


def test_a_file_beside_the_config_of_a_service(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("")
    (tmp_path / "my.yaml").write_text("rewards: {geneval: {type: geneval}}")
    (tmp_path / "elsewhere").mkdir()
    ended = run(["-m", "drpo_rewards", "serve", "../my.yaml"], tmp_path / "elsewhere")
    assert ended.returncode == 2
    assert f"{tmp_path / 'ray.py'} hides the installed package ray" in ended.stderr


FORKING = """
import os, signal, subprocess, sys, time

if sys.argv[1] == "drpo":
    from drpo.cli.endings import endings_as_ctrl_c
    endings = endings_as_ctrl_c()
    endings.__enter__()
else:
    import drpo_rewards.cli
    serve = sys.modules["drpo_rewards.cli.serve"]
    serve._handle([signal.SIGINT], serve._end)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    subprocess.Popen(["true"], preexec_fn=int).wait()  # Python runs its hooks only if there is such a function
    time.sleep(20)
except BaseException as error:
    print(type(error).__name__)
    os._exit(0)
print("lost")
"""


@pytest.mark.parametrize(("program", "ending"), [("drpo", "KeyboardInterrupt"), ("drpo-rewards", "SystemExit")])
def test_a_signal_while_a_process_is_started_is_not_lost(program: str, ending: str) -> None:
    command = [sys.executable, "-c", FORKING, program]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (answer.stdout.strip(), answer.stderr) == (ending, "")


@pytest.mark.parametrize(("program", "label"), [("drpo", "error"), ("drpo_rewards", "error (output)")])
def test_results_that_a_full_disk_did_not_take_are_an_error(program: str, label: str, tmp_path: Path) -> None:
    command = {"drpo": ["-m", "drpo", "prompts", "show", "shapes"], "drpo_rewards": ["-m", "drpo_rewards", "doctor"]}
    full, read = (run(command[program], tmp_path, shell) for shell in ("exec >/dev/full;", "exec > >(head -1);"))
    assert (full.returncode, full.stdout) == (1, "")
    assert f"{label}: what was printed could not be written: No space left on device" in full.stderr
    assert (read.returncode, "could not be written" in read.stderr) == (0, False)
