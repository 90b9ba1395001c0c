"""`download`: fetch a reward's files from the model hub and check them, so that no network is needed later."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from drpo_rewards.cli.local_reward import import_from, stdout_for_results
from drpo_rewards.cli.options import JsonOption, ModelOption, RewardOptions, read_options
from drpo_rewards.cli.output import add_row, console, errors, fail, table
from drpo_rewards.rewards import CATALOGUE, load_class
from drpo_rewards.rewards.download import Downloader, DownloadRow, at_revision


def download(
    names: Annotated[
        list[str] | None, typer.Argument(help="Rewards, or service configs (.yaml) for all of their rewards.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every reward of the catalogue.")] = False,
    model: ModelOption = None,
    option: RewardOptions = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch of the model's repository; for one reward.")
    ] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="A folder to use instead of $HF_HUB_CACHE.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch the files of rewards from the model hub, check them, and print where they are.

    Only files that a reward reads are fetched. Files that are already there are kept, and an interrupted download
    continues. Sizes and hashes are compared with the hub's, and the names and shapes of tensors with the model's.
    Afterwards no network is needed.
    """
    if cache_dir is not None:
        os.environ["HF_HUB_CACHE"] = str(cache_dir.resolve())  # the hub's library, imported later, reads it
    import_from(Path.cwd())
    options = read_options(option) | ({"model": model} if model else {})
    with stdout_for_results():
        selected = list(_select_rewards(names or [], every, options, revision))
        downloader = Downloader(report=_report)
        rows = [row for kind, reward_options in selected for row in downloader.fetch(kind, reward_options)]
    if as_json:
        console.print_json(data=[_json_row(row) for row in rows])
    else:
        _print(rows, cache_dir)
    if any(row.error for row in rows):
        raise typer.Exit(1)


def _select_rewards(
    names: Sequence[str], every: bool, options: dict[str, Any], revision: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the type and the options of each reward to fetch. Raises ConfigError for a config that cannot be read."""
    if every == bool(names):
        raise typer.BadParameter("name rewards or service configs, or give --all", param_hint="NAMES")
    single = len(names) == 1 and not names[0].endswith((".yaml", ".yml"))
    if (options or revision) and not single:
        raise typer.BadParameter("--model, --option and --revision are for one reward; name only that one")
    for name in sorted(CATALOGUE) if every else dict.fromkeys(names):
        if name.endswith((".yaml", ".yml")):
            from drpo_rewards.serving.config import ServiceConfig

            import_from(Path(name).parent)
            rewards = ServiceConfig.load(name).rewards.values()
            yield from ((reward.type, reward.options) for reward in rewards if not reward.class_may_be_elsewhere)
            continue
        reward_options = options or dict(getattr(load_class(name), "download_options", {}))
        yield name, at_revision(name, reward_options, revision) if revision is not None else reward_options


def _report(step: str) -> None:
    errors.print(step, highlight=False, soft_wrap=True)


def _json_row(row: DownloadRow) -> dict[str, Any]:
    return {"from" if key == "source" else key: value for key, value in vars(row).items()}


def _print(rows: Sequence[DownloadRow], cache_dir: Path | None) -> None:
    fetched = table("reward", "from", "revision", "GB", "licence", "checked", "folder", numbers=["GB"])
    for row in rows:
        result = f"error: {row.error}" if row.error else row.folder or ""
        size = f"{row.bytes / 1e9:.2g}" if row.bytes else ""
        add_row(fetched, row.reward, row.source, (row.revision or "")[:10], size, row.license, _checked(row), result)
    fetched.columns[-1].overflow = "fold"  # a folder's name must not be cut off
    console.print(fetched)
    if cache_dir is not None:
        _report(f"serve with HF_HUB_CACHE={cache_dir.resolve()}")
    failed = {row.reward for row in rows if row.error}
    if failed:
        fail("bad_weights", f"not complete: {', '.join(sorted(failed))}")


def _checked(row: DownloadRow) -> str:
    if row.skipped:
        return f"{'hashes; ' if row.files else ''}keys skipped: {row.skipped}"
    if not row.checked:
        return ""
    return "hashes and keys" if row.files else "keys"
