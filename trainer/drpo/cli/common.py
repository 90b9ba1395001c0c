"""Shared parts of the commands: printing, overrides, the check before a start, Ray and the ranking service."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand

import drpo_rewards.errors
from drpo.cli.endings import describe_ending, ending_status, endings_as_ctrl_c, is_ending
from drpo.config import Config, Problem, override, salvage_config, set_value
from drpo.data.prompts.problems import find_unknown_byte
from drpo.errors import ConfigError, DrpoError
from drpo_rewards.errors import RewardsError
from drpo_rewards.findings import Finding
from drpo_rewards.process import explain_missing
from drpo_rewards.screen import make_console
from drpo_rewards.usage import explain_usage

console = make_console("stdout")
errors = make_console("stderr")

DryRun = Annotated[bool, typer.Option(help="Only check what the start needs, and print what is found.")]

DEBUG = "--debug"

_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)
"""The errors of paths that cannot be those of a file: a user's mistake."""


class Application(typer.Typer):
    """A typer app that ends on every error with a line that says what was wrong, and exits with 2 or 1.

    The exit status is 2 if a setting, a file or the command line is wrong, and 1 for everything else. With `--debug`
    anywhere in the command line, the traceback is printed too.
    """

    def command(self, name: str | None = None, **options: Any) -> Any:
        """As in typer, with `Command` as the class of the commands."""
        return super().command(name, **{"cls": Command, **options})

    def __call__(self, args: Sequence[str] | None = None, **options: Any) -> Any:
        silence_libraries()
        for stream in (sys.stdout, sys.stderr):  # any text can be printed, whatever the locale
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        arguments = sys.argv[1:] if args is None else args
        try:
            words = [argument for argument in arguments if argument != DEBUG]
            result = super().__call__(words, **{**options, "standalone_mode": False})
        except Exception as error:
            if DEBUG in arguments and not isinstance(error, typer.TyperException):
                traceback.print_exc()
            message, status = explain(error)
            if message:
                say(("error: ", "bold red"), message, to=errors)
            sys.exit(status)
        sys.exit(result if isinstance(result, int) else 0)


def explain(error: Exception) -> tuple[str, int]:
    """The message of an error, "" if nothing need be said, and the exit status."""
    if isinstance(error, typer.TyperException):
        return explain_usage(error)
    if isinstance(error, typer.Abort) and isinstance(error.__cause__, Exception):  # as which typer raises an EOFError
        error = error.__cause__
    if isinstance(error, DrpoError | RewardsError):
        return str(error), 2 if isinstance(error, ConfigError | drpo_rewards.errors.ConfigError) else 1
    if isinstance(error, ModuleNotFoundError) and (missing := explain_missing(error)):
        return missing, 1
    if isinstance(error, UnicodeEncodeError):
        text = error.object if len(error.object) <= 100 else f"{error.object[:100]}..."
        if error.encoding == "utf-8":
            problem, fix = find_unknown_byte(error.object) or ("holds half of a character", "correct it")
            return f"{text!a} {problem}; {fix}", 2
        return f"the locale ({error.encoding}) cannot express {text!a}; set LC_ALL=C.UTF-8 or PYTHONUTF8=1", 2
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return f"{error.filename or 'a file'}: {error.strerror}", 2 if error.errno in _NO_PATH else 1
    reason = (str(error).strip().splitlines() or [""])[0]
    message = f"this is a fault of drpo, not yours: {type(error).__name__}: {reason}"
    return f"{message}. Please report it, with what the same command prints with {DEBUG}", 1


def say(*parts: str | tuple[str, str], to: Console = console) -> None:
    """Prints one line of text as it is. Brackets in names and messages are never read as markup.

    Args:
        parts: texts, or (text, style).
        to: where it is printed.

    Example:
        say("run ", (run_dir.name, "bold"), f" in {run_dir}")
    """
    to.print(Text.assemble(*parts), soft_wrap=True)


def silence_libraries() -> None:
    """Hides the messages of libraries, which would break the progress bar."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it says so if there is no home that can be written
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


class Command(TyperCommand):
    """A command whose paths may begin with `~` for the home folder, which a shell leaves in `--out=~/x.png`.

    A signal that ends it is named in a line, and in the exit status.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        typed = tuple(args)  # typer empties the list
        rest = super().parse_args(ctx, args)
        self._refuse_empty_paths(ctx, typed)
        ctx.params = {name: _expand_home(value) for name, value in ctx.params.items()}
        return rest

    def _refuse_empty_paths(self, ctx: Any, args: Sequence[str]) -> None:
        """Refuses `--out ""`, as of an unset variable of a shell. As a path it would be the current folder."""
        found = {
            name for name, value in ctx.params.items() if Path() in (value if isinstance(value, list) else [value])
        }
        paths = {name for option in self.get_params(ctx) if option.name in found for name in option.opts}
        for before, word in zip(("", *args), args, strict=False):
            option, equals, value = word.partition("=") if word else (before, "=", "")
            if option in paths and equals and not value:
                raise ConfigError(f"{option} is empty: give a path, or leave it out")
            if not word and not before.startswith("-"):
                raise ConfigError("an argument is empty, perhaps of an unset variable")

    def invoke(self, ctx: Any) -> Any:
        try:
            with endings_as_ctrl_c():
                return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, typer.Exit) or not is_ending(error):
                raise
            say(describe_ending(error), to=errors)
            raise typer.Exit(ending_status()) from None


def _expand_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_expand_home(one) for one in value]
    return Path(os.path.expanduser(value)) if isinstance(value, Path) else value


class SettingsCommand(Command):
    """A command that also takes settings, --section.key VALUE, before, between and after its own words.

    They become `context.args`, see `parse_settings`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # the shell asks for completions
            return super().parse_args(ctx, args)
        own = {name: option for option in self.get_params(ctx) for name in (*option.opts, *option.secondary_opts)}
        takes_value = {name: not getattr(option, "is_flag", True) for name, option in own.items()}
        words, overrides = parse_settings(args, takes_value)
        ctx.allow_extra_args = True
        if rest := super().parse_args(ctx, words):
            raise ConfigError("\n".join(f"there is no argument {word}; {_HOW_TO_WRITE}" for word in rest))
        ctx.args = overrides
        return overrides


_HOW_TO_WRITE = "write settings as --section.key VALUE"


def parse_settings(arguments: Sequence[str], own: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """Separates the settings on the command line from a command's own words.

    Args:
        arguments: for example ["name", "--training.steps", "5", "--optimizer.lr=1e-3", "--seed", "3"]; or a whole
            section, ["--lora", "null"].
        own: the options of the command, and whether each takes a value.

    Returns:
        The command's words, here ["name", "--seed", "3"], and the overrides, here ["training.steps=5",
        "optimizer.lr=1e-3"].

    Raises:
        ConfigError: an option is none of the command, no dotted key and no section, or has no value; one line for each.
    """
    words, overrides, problems, rest = list[str](), list[str](), list[str](), list(arguments)
    while rest:
        argument = rest.pop(0)
        option, equals, _ = argument.partition("=")
        if argument == "--":
            words += [argument, *rest]
            break
        if option in own or not option.startswith("--"):
            words.append(argument)
            if rest and not equals and own.get(option):
                words.append(rest.pop(0))
        elif "." not in option and option[2:] not in Config.model_fields:
            problems.append(f"there is no option {argument}; {_HOW_TO_WRITE}")
        elif equals:
            overrides.append(argument[2:])
        elif not rest or rest[0].partition("=")[0] in own or re.match(r"--[a-z_]+\.[a-z_.]+(=|$)", rest[0]):
            problems.append(f"{argument} needs a value; one that begins with -- is written {argument}=VALUE")
        else:
            overrides.append(f"{argument[2:]}={rest.pop(0)}")
    if problems:
        raise ConfigError("\n".join(problems))
    return words, overrides


def check_before_start(
    values: dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    typed: Mapping[str, Any] | None = None,
    problems: Iterable[Problem] = (),
    dry_run: bool = False,
    **plan: Any,
) -> Config:
    """Looks at everything that can be known before the start; see `drpo.checks`.

    Args:
        values: the settings, not yet checked; changed in place.
        overrides: "dotted.key=value".
        typed: settings with options of their own, such as --name; those that are None are left out.
        problems: what is known to be wrong already.
        dry_run: print all findings and end, with exit status 2 if something is wrong.
        plan: the other fields of `drpo.checks.Plan`.

    Returns:
        The config, with absolute paths.

    Raises:
        ConfigError: something is wrong; the message has a line for each problem.
    """
    problems = [*problems, *override(values, overrides)]
    given = {text.partition("=")[0] for text in overrides}
    for key, value in (typed or {}).items():
        if value is None:
            continue
        if key in given:
            problems.append(Problem(key, f"{key} is given twice, by --{key} and by an option of its own; omit one"))
        if (
            values.get(section := key.partition(".")[0], {}) is None
        ):  # such as `lora: null`, which trains the whole U-Net
            problems.append(Problem(key, f"{key} cannot be set with {section}: null; leave one of them out"))
        else:
            set_value(values, key, value)
    config, wrong = salvage_config(values)

    from drpo.checks import RESUME, Plan, examine, make_paths_absolute, require

    config = make_paths_absolute(config)
    with console.status("checking"):
        findings = examine(Plan(config, **plan), [*problems, *wrong])
    if dry_run:
        raise typer.Exit(2 if print_findings(findings) else 0)
    require(findings)
    for finding in findings:
        if finding.check == RESUME and finding.state == "warning":
            say(finding.found)
    return config


def print_findings(findings: Sequence[Finding]) -> int:
    """Prints one line for each finding, and how many are wrong. Returns that number."""
    styles = {"ok": "green", "wrong": "red", "warning": "yellow", "skipped": "dim"}
    for finding in findings:
        fix = f"; {finding.fix}" if finding.fix else ""
        say((f"{finding.state:8}", styles[finding.state]), f"{finding.check:13}", finding.named, fix)
    wrong = sum(finding.state == "wrong" for finding in findings)
    say(f"{wrong} of {len(findings)} checks found something wrong" if wrong else "nothing is wrong")
    return wrong


@contextmanager
def ray_and_rewards(config: Config, *, rewards: bool = True) -> Iterator[Config]:
    """Starts Ray, and the ranking service unless `rewards.address` is set; ends both after the block.

    Args:
        config: the settings of the run.
        rewards: whether rewards are needed at all. If not, no service is started.

    Yields:
        The config, with `rewards.address` set if rewards are needed.
    """
    from drpo.checks.devices import count_local_cpus
    from drpo.cluster.connect import connect_ray
    from drpo_rewards.cluster.local_ray import silence_serve, stop_ray

    start_service = rewards and config.rewards.address is None
    starting = "Ray and the reward service (about 30 s)" if start_service else "Ray (about 10 s)"
    service = None
    try:
        with console.status(f"starting {starting}"):
            training = config.training
            cpus = count_local_cpus(training.num_workers, training.threads_per_worker)
            connect_ray(config.run.ray_address, cpus=cpus)
            silence_serve(logging.ERROR)
            if start_service:
                from drpo.shapes.embedded import service_source
                from drpo_rewards.serving import start

                assert config.rewards.service is not None  # `RewardsConfig` requires one if there is no address
                service = start(service_source(config.rewards.service))
                reached = config.rewards.model_copy(update={"address": service.handle_address})
                config = config.model_copy(update={"rewards": reached})
        yield config
    finally:
        if service is not None and config.run.ray_address is not None:
            service.stop()  # not needed for a local Ray, which ends with its services
        stop_ray()
