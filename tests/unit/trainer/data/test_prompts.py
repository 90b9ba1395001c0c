"""Prompt sources, and the order of the prompts in a run."""

from __future__ import annotations

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


def test_the_embedded_prompts_have_their_specification():
    records = load_prompts(PromptsConfig(source="shapes", split="validation"))
    assert len({record.task for record in records}) == 6
    assert all(record.metadata["include"] for record in records)


def test_what_does_not_exist_is_refused():
    with pytest.raises(CatalogueError, match="choose from shapes, file, hub"):
        load_prompts(PromptsConfig(source="tales"))
    with pytest.raises(ConfigError, match=r"evaluation\.split: there is no split 'other' of shapes"):
        load_prompts(PromptsConfig(split="other"), section="evaluation")
    with pytest.raises(ConfigError, match="no task 'painting' in shapes; choose from color_attr"):
        load_prompts(PromptsConfig(tasks=("painting",)))


@pytest.mark.parametrize("source", ["shapes", "geneval", "geneval_train", "parti"])
def test_a_setting_that_a_source_does_not_use_is_refused(source):
    for key in ("path", "column"):
        with pytest.raises(ConfigError, match=rf"prompts\.{key} is 'x', but the source {source} reads no file"):
            load_prompts(PromptsConfig(source=source, **{key: "x"}))
    with pytest.raises(ConfigError, match=r"prompts\.task_column is 'x'"):
        load_prompts(PromptsConfig(source=source, task_column="x"))
