"""`download`: a reward's files from the model hub, checked, so that everything else works without a network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drpo_rewards.cli.common import AsJson, add_row, console, errors, fail, import_from, table, told_errors
from drpo_rewards.cli.score import Model, Option, read_options
from drpo_rewards.errors import ConfigError, RewardsError

if TYPE_CHECKING:
    from drpo_rewards.rewards.files.hub import Fetched
    from drpo_rewards.rewards.files.parts import Part

Wanted = tuple[str, dict[str, Any]]  # a reward's type and its options


def download(
    names: Annotated[list[str] | None, typer.Argument(help="Rewards, or service configs (.yaml) with theirs.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every reward of the catalogue.")] = False,
    model: Model = None,
    option: Option = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch of the model's repository; of one reward.")
    ] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Instead of $HF_HUB_CACHE.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch what rewards need from the model hub, check it, and say where it lies.

    Only files that a reward reads; what is there already stays, and what broke off goes on. Sizes and hashes are
    compared with the hub's, and the tensors' names and shapes with the model's. Afterwards no network is needed.
    """
    if cache_dir is not None:
        os.environ["HF_HUB_CACHE"] = str(cache_dir.resolve())  # read when the hub's library is imported, below
    import_from(Path.cwd())
    with told_errors():
        options = read_options(option) | ({"model": model} if model else {})
        wanted = list(_wanted(names or [], every, options, revision))
        fetched: dict[tuple[str, Part], Fetched] = {}  # several rewards may read the same CLIP
        rows = [row for kind, given in wanted for row in _fetch_reward(kind, given, fetched)]
    if as_json:
        console.print_json(data=rows)
    else:
        _print(rows, cache_dir)
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


def _wanted(names: Sequence[str], every: bool, options: dict[str, Any], revision: str | None) -> Iterator[Wanted]:
    """Each reward that is asked for, once. Raises ConfigError for a config that cannot be read."""
    from drpo_rewards.rewards import CATALOGUE, load_class, needs

    if every == bool(names):
        raise typer.BadParameter("name rewards or service configs, or give --all", param_hint="NAMES")
    single = len(names) == 1 and not names[0].endswith((".yaml", ".yml"))
    if (options or revision) and not single:
        raise typer.BadParameter("--model, --option and --revision are of one reward; name just that one")
    for name in sorted(CATALOGUE) if every else dict.fromkeys(names):
        if name.endswith((".yaml", ".yml")):
            from drpo_rewards.serving.config import ServiceConfig

            import_from(Path(name).parent)
            rewards = ServiceConfig.load(name).rewards.values()
            yield from ((reward.type, reward.options) for reward in rewards)
            continue
        given = options or dict(getattr(load_class(name), "download_options", {}))
        if revision is not None:
            place = next((place for part, place in needs(name, given) if part.option == "model"), None)
            if place is None:
                raise ConfigError(f"reward {name!r} has no model whose revision could be {revision!r}")
            given = {**given, "model": f"{place.partition('@')[0]}@{revision}"}
        yield name, given


def _fetch_reward(kind: str, options: dict[str, Any], fetched: dict[tuple[str, Part], Fetched]) -> list[dict[str, Any]]:
    """One row for each part of a reward; the last one's error is what the check of the whole reward said."""
    from drpo_rewards.rewards import create, needs
    from drpo_rewards.rewards.files import hub
    from drpo_rewards.rewards.files.weights import headers_only

    rows: list[dict[str, Any]] = []
    try:
        parts = needs(kind, options)
        if not parts:
            return [_row(kind, "", "(it declares no files)")]
        for part, place in parts:
            rows.append(_row(kind, part.license, place))
            if hub.is_local(place):
                rows[-1]["folder"] = str(hub.find(part, place))
                continue
            key = place, replace(part, option="", inside="")
            if key not in fetched:
                _tell(f"{kind}: {place}, about {part.gigabytes:g} GB")
                fetched[key] = hub.fetch(part, place, step=_tell)
            got = fetched[key]
            rows[-1] |= {
                "folder": str(got.folder),
                "revision": got.revision,
                "files": got.files,
                "bytes": got.bytes,
            }
        with headers_only():
            create(kind, options)
        for row in rows:
            row["checked"] = True
    except RewardsError as error:
        rows = rows or [_row(kind, "", "")]
        rows[-1]["error"] = str(error)
    return rows


def _tell(doing: str) -> None:
    errors.print(doing, highlight=False, soft_wrap=True)


def _row(kind: str, license: str, place: str) -> dict[str, Any]:
    return {"reward": kind, "from": place, "license": license, "revision": None, "folder": None} | {
        "files": [],
        "bytes": 0,
        "checked": False,
        "error": "",
    }


def _print(rows: list[dict[str, Any]], cache_dir: Path | None) -> None:
    made = table("reward", "from", "revision", "GB", "licence", "checked", "lies in", numbers=["GB"])
    for row in rows:
        said = f"error: {row['error']}" if row["error"] else row["folder"] or ""
        checked = "hashes and keys" if row["checked"] and row["files"] else "keys" if row["checked"] else ""
        size = f"{row['bytes'] / 1e9:.2g}" if row["bytes"] else ""
        add_row(made, row["reward"], row["from"], (row["revision"] or "")[:10], size, row["license"], checked, said)
    made.columns[-1].overflow = "fold"  # a folder's name cut short is of no use
    console.print(made)
    if cache_dir is not None:
        _tell(f"serve with HF_HUB_CACHE={cache_dir.resolve()}")
    failed = {row["reward"] for row in rows if row["error"]}
    if failed:
        fail("bad_weights", f"not complete: {', '.join(sorted(failed))}")
