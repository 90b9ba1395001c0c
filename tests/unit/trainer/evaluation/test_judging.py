"""Pairwise judging: the real judge behind a real HTTP endpoint, on pictures on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from support.chat_server import ChatServer, Reply, chat_server, prefer_bright
from support.local_ranker import LocalClient

from drpo.cli.judge import print_outcomes
from drpo.data.prompts.record import PromptRecord
from drpo.errors import ConfigError, EvaluationError
from drpo.evaluation.judging import Outcome, Verdicts, draw_bars, find_pairs, read_row_name, summarize
from drpo.evaluation.plan import PlannedImage, plan_images
from drpo.evaluation.table.pictures import PictureFolder
from drpo.shapes.world import render, sample_scene
from drpo_rewards.errors import RewardsError
from drpo_rewards.rewards.geneval.reward import GenevalReward
from drpo_rewards.rewards.judge.reward import Judge

PLANNED = plan_images([PromptRecord(f"picture {i}") for i in range(6)], images_per_prompt=2)
EQUAL = {one.key for one in PLANNED if one.number == 1 and one.record.prompt < "picture 3"}  # three pairs
BRIGHTER, DARKER = 200, 60


def answer(winner: str) -> Reply:
    return Reply(json.dumps({"winner": winner, "confidence": 0.9, "reason": "brighter"}))


def prefer_first(body: dict[str, Any]) -> Reply:
    return answer("A")


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Path, Path]:
    """Two rows. The first one is brighter, except for three pairs that are equal."""

    def paint(level: int, planned: Sequence[PlannedImage]) -> np.ndarray:
        return np.stack([np.full((8, 8, 3), DARKER if one.key in EQUAL else level, np.uint8) for one in planned])

    folders = tmp_path / "bright", tmp_path / "dark"
    for folder, level in zip(folders, (BRIGHTER, DARKER), strict=True):
        pictures = PictureFolder(folder / "set")
        pictures.draw(PLANNED, lambda planned, level=level: paint(level, planned), batch_size=5)
        (folder / "row.json").write_text(json.dumps({"name": folder.name.title()}))
    return folders


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> Iterator[tuple[ChatServer, LocalClient]]:
    with chat_server(request.param) as server:
        client: Any = LocalClient(Judge("endpoint", model="seer", base_url=server.url, retries=0), "judge")  # type: ignore[arg-type]
        yield server, client


@pytest.mark.parametrize("endpoint", [prefer_bright], indirect=True)
def test_the_better_row_wins_in_either_order(
    rows: tuple[Path, Path], endpoint: tuple[ChatServer, Any], tmp_path: Path
) -> None:
    server, client = endpoint
    pairs = find_pairs(*rows)
    assert len(pairs) == 12
    assert 0 < sum(pair.swapped for pair in pairs) < 12
    verdicts = Verdicts(tmp_path / "verdicts.jsonl", "judge", "1", both_orders=False)
    verdicts.judge(pairs, client)
    outcome = summarize(verdicts.of(pairs))
    assert (outcome.win[0], outcome.loss[0], outcome.tie[0]) == (9 / 12, 0, 3 / 12)
    assert outcome.without_ties == (1, 1, 1)
    assert outcome.half_ties[0] == pytest.approx(10.5 / 12)
    assert outcome.win[1] < 9 / 12 < outcome.win[2]
    assert (outcome.flips, outcome.unparsed, outcome.prompts) == (0, 0, 6)
    assert len(server.bodies) == 24, "the project's judge asks in both orders"
    reverse = Verdicts(tmp_path / "reverse.jsonl", "judge", "1", both_orders=False)
    reverse.judge(find_pairs(*rows[::-1]), client)
    lost = summarize(reverse.of(pairs))
    assert (lost.win, lost.loss) == (outcome.loss, outcome.win)
    draw_bars(tmp_path / "bars.svg", "b_r$ight", {"dark": outcome, "all ties": lost})
    drawing = (tmp_path / "bars.svg").read_text()
    assert "b_r$ight against dark" in drawing
    assert "75.0" in drawing


@pytest.mark.parametrize("endpoint", [prefer_first], indirect=True)
def test_a_judge_that_looks_at_the_position_only_flips(
    rows: tuple[Path, Path], endpoint: tuple[ChatServer, Any], tmp_path: Path
) -> None:
    _, client = endpoint
    pairs = find_pairs(*rows, most=5)
    assert [pair.key for pair in pairs] == [pair.key for pair in find_pairs(*rows)[:5]]
    for both_orders in (False, True):
        verdicts = Verdicts(tmp_path / "verdicts.jsonl", "judge", "1", both_orders=both_orders)
        assert len(verdicts.missing(pairs)) == 5, "verdicts in one order are none in both"
        verdicts.judge(pairs, client)
        outcome = summarize(verdicts.of(pairs))
        assert (outcome.tie[0], outcome.flips, outcome.without_ties) == (1, 1, None)


def test_what_is_judged_is_never_asked_again(rows: tuple[Path, Path], tmp_path: Path) -> None:
    asked = []

    def fails_later(body: dict[str, Any]) -> Reply:
        asked.append(body)
        return answer("A") if len(asked) <= 6 else Reply("no", 400)

    path = tmp_path / "verdicts.jsonl"
    pairs = find_pairs(*rows)
    with chat_server(fails_later) as server:
        client: Any = LocalClient(Judge("endpoint", model="seer", base_url=server.url, retries=0), "judge")  # type: ignore[arg-type]
        with pytest.raises(RewardsError):
            Verdicts(path, "judge", "1", both_orders=False).judge(pairs, client, concurrency=1)
    left = Verdicts(path, "judge", "1", both_orders=False).missing(pairs)
    assert 12 - len(left) == len(path.read_text().splitlines()) > 0
    for judge, version in (("judge", "2"), ("other", "1")):
        other = Verdicts(path, judge, version, both_orders=False)
        assert len(other.missing(pairs)) == 12, "another judge judges anew"
    with chat_server(prefer_bright) as server:
        client = LocalClient(Judge("endpoint", model="seer", base_url=server.url, retries=0), "judge")  # type: ignore[arg-type]
        again = Verdicts(path, "judge", "1", both_orders=False)
        again.judge(left, client)
        assert len(server.bodies) == 2 * len(left)
    assert again.missing(pairs) == []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "metadata"}) + "\n" for line in lines))
    before = Verdicts(path, "judge", "1", both_orders=False)
    assert len(before.missing(pairs)) == 12, "nobody knows what the judge was told"
    described = [replace(one, record=replace(one.record, metadata={"style": "oil"})) for one in PLANNED]
    for row in rows:
        PictureFolder(row / "set").renew_metadata(described)
    assert len(again.missing(find_pairs(*rows))) == 12, "the judge was told other metadata"


def test_rows_without_common_pictures_are_refused(rows: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no pictures of a row: make them with `drpo eval --row"):
        find_pairs(rows[0], tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "row.json").write_text("{}")
    with pytest.raises(ConfigError, match="bright and empty have no prompts and noises in common"):
        find_pairs(rows[0], tmp_path / "empty")
    with pytest.raises(EvaluationError, match="no verdicts"):
        summarize([])


def test_a_reward_of_single_pictures_judges_with_the_metadata_of_the_prompts(tmp_path: Path) -> None:
    red, blue = ({"include": [{"class": "circle", "color": color}]} for color in ("red", "blue"))
    planned = plan_images([PromptRecord("red", metadata=red), PromptRecord("blue", metadata=blue)], images_per_prompt=1)
    scenes = {color: sample_scene(wanted, np.random.default_rng(1)) for color, wanted in (("red", red), ("blue", blue))}
    drawn = {color: render(scene, np.random.default_rng(2)) for color, scene in scenes.items()}
    rows = {"right": lambda of: np.stack([drawn[one.record.prompt] for one in of])}
    rows["red"] = lambda of: np.stack([drawn["red"] for _ in of])
    for name, paint in rows.items():
        PictureFolder(tmp_path / name / "set").draw(planned, paint, batch_size=4)
        (tmp_path / name / "row.json").write_text("{}")
    pairs = find_pairs(tmp_path / "right", tmp_path / "red")
    client: Any = LocalClient(GenevalReward(detector="shapes"))
    (info,) = client.models()
    verdicts = Verdicts(tmp_path / "verdicts.jsonl", info.name, info.version, both_orders=False)
    verdicts.judge(pairs, client, schema=info.metadata_schema)
    results = {line["prompt"]: line["result"] for line in verdicts.of(pairs)}
    assert results == {"red": "tie", "blue": "win"}


def test_outcomes_fit_into_a_narrow_terminal(
    rows: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drpo.cli.judge.console", Console(width=80))
    share = (0.521, 0.478, 0.567)
    outcome = Outcome(500, 100, *[share] * 5, 0.1, 0)
    print_outcomes(read_row_name(rows[0]), {"VGG-Flow, 2e-3": outcome, "one prompt": replace(outcome, prompts=1)})
    printed = capsys.readouterr().out
    assert printed.count("48..57") == 5
    assert printed.count("52.1") == 10
    assert "…" not in printed
    assert "Bright against" in printed
