"""What is free to choose in pictures of shapes: on rendered scenes, whose colours and places are known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from drpo.data.prompts.record import PromptRecord
from drpo.evaluation.evaluate import Batch
from drpo.evaluation.plan import plan_images
from drpo.generators.base import Conditions
from drpo.shapes.variety import Seen, add, effective_number, look
from drpo.shapes.world import Shape, render
from drpo.watching.guards import Guards
from drpo_rewards.api.shapes import PALETTE
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.geneval.reward import GenevalReward

COLORS = tuple(PALETTE)[:4]
OPEN = {"include": [{"class": "circle", "count": 1}]}


def draw(*shapes: Shape) -> np.ndarray:
    return render(list(shapes), np.random.default_rng(0))


def circle(color: str, x: float = 32, y: float = 32, name: str = "circle") -> Shape:
    return Shape(name, color, x, y, 20)


def test_colours_count_where_the_prompt_names_none() -> None:
    seen = add(look(draw(circle(color)), OPEN) for color in COLORS)
    assert seen.colors == Counter(COLORS)
    assert effective_number(seen.colors) == pytest.approx(4)
    named = {"include": [{"class": "circle", "count": 1, "color": COLORS[0]}]}
    assert look(draw(circle(COLORS[0])), named).colors == Counter()
    other = {"include": [{"class": "square", "count": 1}]}
    assert look(draw(circle(COLORS[0])), other) == Seen()  # what the prompt does not name is not counted


def test_what_geneval_has_found_is_not_looked_for_again() -> None:
    picture = draw(circle(COLORS[0], x=16), circle(COLORS[1], x=46))
    (score,) = GenevalReward().score([ScoreItem(picture, "", OPEN)])
    assert score.details is not None
    blank = np.zeros_like(picture)
    assert look(blank, OPEN, score.details["objects"]) == look(picture, OPEN)
    assert look(blank, OPEN) == look(picture, OPEN, []) == Seen()


def test_of_two_objects_only_the_one_without_a_colour_counts() -> None:
    first, second = COLORS[:2]
    spec = {"include": [{"class": "circle", "count": 1, "color": first}, {"class": "square", "count": 1}]}
    seen = look(draw(circle(first, x=16), circle(second, x=46, name="square")), spec)
    assert seen.colors == Counter({second: 1})
    assert seen.places == Counter({(1, 0): 1, (1, 2): 1})


def test_places_count_where_the_prompt_names_no_relation() -> None:
    corners = [(14, 14), (14, 50), (50, 14), (50, 50)]
    seen = add(look(draw(circle(COLORS[0], x, y)), OPEN) for x, y in corners)
    assert seen.places == Counter({(0, 0): 1, (2, 0): 1, (0, 2): 1, (2, 2): 1})
    placed = {"include": [{"class": "square", "count": 1}, {"class": "circle", "count": 1, "position": ["left of", 0]}]}
    assert look(draw(circle(COLORS[0], 14), circle(COLORS[1], 50, name="square")), placed).places == Counter()


def test_the_effective_number_is_the_exponential_of_the_entropy() -> None:
    assert effective_number(Counter()) == 0
    assert effective_number(Counter(a=7)) == 1
    assert effective_number(Counter(a=3, b=1)) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))


def test_the_guards_of_a_run_in_shapes_count_both() -> None:
    planned = plan_images([PromptRecord("a circle", metadata=OPEN)], images_per_prompt=4)
    batch = Batch(
        planned=planned,
        images_NHWC=np.stack([draw(circle(color)) for color in COLORS]),
        latents_NChw=torch.randn(4, 4, 2, 2, generator=torch.Generator().manual_seed(0)),
        conditions=Conditions(torch.zeros(4, 1, 1)),
    )
    for of_shapes, expected in ((True, Counter(COLORS)), (False, Counter())):
        guards = Guards(None, [planned], of_shapes=of_shapes)
        guards.observe_base(batch)
        for _ in range(2):  # nothing of one evaluation is left for the next
            guards.observe(batch)
            (measured,) = guards.collect()
            assert measured.seen.colors == measured.base_seen.colors == expected
