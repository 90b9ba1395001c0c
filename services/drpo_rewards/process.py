"""What every command needs of the process in which it starts.

Standard streams, a folder to stand in, and modules that no file hides.

Imports only what Python has loaded before it looks into any folder, because a file may hide everything else.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

TYPE_CHECKING = False  # `typing` is not loaded yet
if TYPE_CHECKING:
    from types import FrameType

UNUSED = ("test", "this", "turtle")  # modules of Python that no command imports, whose names people give files
AT_ONCE_S = 0.2  # after a signal that counts, others are the same ending
AGAIN_S = 0.1  # until a signal comes again that a fork could not take
OURS = ("drpo", "drpo_rewards")  # another checkout of them is no mistake


def prepare_process(label: str) -> None:
    """Open the standard streams. If no command can run in this process, say why, and end it with status 2.

    Args:
        label: what the line begins with.
    """
    open_standard_streams()
    if problem := find_problem():
        print(f"{label}: {problem}", file=sys.stderr)
        sys.exit(2)


class EndingClock:
    """Tells endings apart.

    `timeout` sends SIGTERM to a process and to its group, and systemd may send SIGHUP with it. Such signals are one.
    """

    def __init__(self) -> None:
        self._counted_s = float("-inf")

    def counts(self) -> bool:
        """Return whether a signal that comes now is an ending of its own."""
        now_s = time.monotonic()
        if now_s - self._counted_s < AT_ONCE_S:
            return False
        self._counted_s = now_s
        return True


def put_off_in_fork(number: int, frame: FrameType | None) -> bool:
    """Let a signal come again a moment later if a process is being started. To be asked by a handler that raises.

    Between the two halves of a fork, Python runs hooks, in which it ignores every exception: the ending would be lost,
    and the lock of `logging`, which such a hook gives back, would be held for ever.

    Args:
        number: the signal.
        frame: what it interrupted.

    Returns:
        Whether it will come again.
    """
    subprocess, threading = sys.modules.get("subprocess"), sys.modules.get("threading")
    if subprocess is None or threading is None:  # then none can have been started
        return False
    while frame is not None and frame.f_code is not subprocess.Popen._execute_child.__code__:
        frame = frame.f_back
    if frame is None:
        return False
    again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
    return True


def run_command_line(module: str, label: str, status: int, **options: str) -> None:
    """Import a command line and run it. If a package is missing for that, say which, and end the process.

    A command that printed to a full disk goes on to its end, and then fails: what it printed is lost.

    Args:
        module: has the `app`.
        label: what the line of an error begins with; `{code}` stands for its kind.
        status: the exit status if a package is missing.
        options: those of the app.
    """
    from importlib import import_module

    try:
        app = import_module(module).app
    except ModuleNotFoundError as error:
        if not (missing := explain_missing(error)):
            raise
        print(f"{label.format(code='missing_package')}: {missing}", file=sys.stderr)
        sys.exit(status)
    try:
        app(**options)
    except SystemExit as ending:
        from drpo_rewards.screen import why_lost

        if ending.code or not (reason := why_lost()):
            raise
        print(f"{label.format(code='output')}: what was printed could not be written: {reason}", file=sys.stderr)
        sys.exit(1)


def explain_missing(error: ModuleNotFoundError) -> str:
    """Return which package this Python lacks, and what to do; "" if it is no package but a part of this project."""
    name = (error.name or "").partition(".")[0]
    if not name or name in OURS:
        return ""
    state = (
        "is too old, or damaged"
        if name != error.name and name in sys.modules
        else f"is not installed for {sys.executable}"
    )
    return f"{error.name} {state}; {sys.executable} -m pip install 'drpo[all]' installs what is needed"


def open_standard_streams() -> None:
    """Open what the process was started without, as by `>&-`.

    Otherwise the next file, for example of a checkpoint, gets that number, and what a library prints goes into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def find_problem() -> str | None:
    """Return why no command can run in this process: its folder was removed, or a file hides a module."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current folder has been removed; go to one that is there with cd"
    return find_hidden_module(sys.path[: _own_folders()])


def find_hidden_module(folders: list[str]) -> str | None:
    """Return which file in one of the folders hides a module of Python or of an installed package that is needed.

    Args:
        folders: where Python looks, or will look, before it looks into its own folders. Those that pip has filled are
            left out.
    """
    installed = sys.path[_own_folders() :]
    for folder in folders:
        entries = _list(folder or os.curdir)
        if any(entry.endswith(".dist-info") for entry in entries):
            continue
        for name in sorted({entry.partition(".")[0] for entry in entries} - {*UNUSED, *OURS}):
            file = _find_file(name, [folder])
            if file is None or _comes_first(name):
                continue
            if name in sys.stdlib_module_names:
                hidden = f"Python's own module {name}"
            elif _find_file(name, installed) and _is_needed(name):
                hidden = f"the installed package {name}"
            else:
                continue
            return f"{file} hides {hidden}; rename it, or take its folder out of PYTHONPATH"
    return None


def check_modules(folder: str) -> None:
    """Check that no file in a folder from which modules will be imported hides another module.

    Raises:
        ConfigError: one does.
    """
    from drpo_rewards.errors import ConfigError

    if problem := find_hidden_module([folder]):
        raise ConfigError(problem)


def _own_folders() -> int:
    """Return where in `sys.path` the folders of Python and of the installed packages begin."""
    own = os.path.dirname(os.__file__)
    return sys.path.index(own) if own in sys.path else 0


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _find_file(name: str, folders: list[str]) -> str | None:
    """Return the file of a module; None if there is none, or only a folder without `__init__.py`."""
    found = PathFinder.find_spec(name, folders)
    return found.origin if found is not None and found.has_location else None


def _comes_first(name: str) -> bool:
    """Return whether Python finds its own module before it looks into any folder."""
    return any(importer.find_spec(name) for importer in (BuiltinImporter, FrozenImporter))


def _is_needed(name: str) -> bool:
    """Return whether this package, or one that it needs, provides the module, directly or through others."""
    from importlib import metadata  # by now it is known that no file hides it

    providers = metadata.packages_distributions().get(name, ())
    return not {_normalize(one) for one in providers}.isdisjoint(_find_needed())


def _find_needed() -> set[str]:
    """Return the names of all packages that this one needs, with all extras, directly or through others."""
    import re
    from importlib import metadata

    known, new = set[str](), ["drpo"]
    while new:
        one = _normalize(new.pop())
        if one in known:
            continue
        known.add(one)
        try:
            new += [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in metadata.requires(one) or []]
        except metadata.PackageNotFoundError:
            continue
    return known


def _normalize(name: str) -> str:
    """Return a package's name in the form that compares equal however it was written."""
    return name.lower().replace("_", "-").replace(".", "-")
