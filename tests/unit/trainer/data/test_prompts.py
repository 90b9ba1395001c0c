"""Prompt sources, and the order of the prompts in a run."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from drpo.config import PromptsConfig
from drpo.data.prompts import PromptOrder, PromptRecord, load_prompts
from drpo.errors import CatalogueError, ConfigError


def numbered(task: str, count: int) -> list[PromptRecord]:
    return [PromptRecord(f"{task} {index}", task=task) for index in range(count)]


def test_an_epoch_has_every_prompt_once():
    order = PromptOrder(numbered("a", 7), seed=3)
    epochs = [[order.at(7 * epoch + offset).prompt for offset in range(7)] for epoch in range(3)]
    assert all(len(set(epoch)) == 7 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_balanced_tasks_come_equally_often():
    records = numbered("many", 50) + numbered("few", 3) + numbered("one", 1)
    order = PromptOrder(records, seed=0, balance_tasks=True)
    seen = [order.at(position) for position in range(150)]
    assert Counter(record.task for record in seen) == {"many": 50, "few": 50, "one": 50}
    assert len({record.prompt for record in seen if record.task == "many"}) == 50


def test_the_order_depends_only_on_the_seed_and_the_position():
    records = numbered("a", 20) + numbered("b", 4)
    one, other = PromptOrder(records, seed=1, balance_tasks=True), PromptOrder(records, seed=1, balance_tasks=True)
    expected = [one.at(position) for position in range(40)]
    assert [other.at(position) for position in reversed(range(40))] == expected[::-1]
    assert other.take(3, 4) == expected[12:16]
    assert [PromptOrder(records, seed=2).at(position) for position in range(40)] != expected


def test_jsonl(tmp_path):
    path = tmp_path / "prompts.jsonl"
    geneval = {"tag": "counting", "include": [{"class": "circle", "count": 2}], "prompt": "two circles"}
    lines = [{"prompt": "a"}, {"prompt": "b", "metadata": {"x": 1}, "task": "t"}, geneval]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    records = load_prompts(PromptsConfig(source="jsonl", path=str(path)))
    assert records == [
        PromptRecord("a"),
        PromptRecord("b", {"x": 1}, "t"),
        PromptRecord("two circles", geneval, "counting"),
    ]
    only = load_prompts(PromptsConfig(source="jsonl", path=str(path), tasks=("t",)))
    assert [record.prompt for record in only] == ["b"]


@pytest.mark.parametrize("line", ["{", '{"text": "a"}', '{"prompt": ""}', '{"prompt": "a", "metadata": 3}'])
def test_the_error_of_a_bad_line_has_its_number(tmp_path, line):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "fine"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=r"prompts\.jsonl:2"):
        load_prompts(PromptsConfig(source="jsonl", path=str(path)))


def test_the_embedded_prompts_have_their_specification():
    records = load_prompts(PromptsConfig(source="shapes", split="validation"))
    assert len({record.task for record in records}) == 6
    assert all(record.metadata["include"] for record in records)


def test_what_does_not_exist_is_refused():
    with pytest.raises(CatalogueError, match="jsonl, shapes"):
        load_prompts(PromptsConfig(source="tales"))
    with pytest.raises(ConfigError, match="split"):
        load_prompts(PromptsConfig(split="other"))
    with pytest.raises(ConfigError, match="no task 'painting'"):
        load_prompts(PromptsConfig(tasks=("painting",)))
