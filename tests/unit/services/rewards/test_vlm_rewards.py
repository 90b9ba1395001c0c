"""vlm_score and soft_tifa on a tiny Qwen3-VL, against one plain pass of the network per question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.images import SPECIAL, picture
from support.tiny.qwen3_vl import write_qwen3_vl

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError, InvalidRequestError
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.checks import describe, probe
from drpo_rewards.rewards.shared.preprocess import break_special_tokens
from drpo_rewards.rewards.shared.qwen3_vl import Qwen3VL
from drpo_rewards.rewards.shared.qwen_vl import IMAGE, encode_images, encode_texts
from drpo_rewards.rewards.vlm import packed
from drpo_rewards.rewards.vlm.answers import list_forms
from drpo_rewards.rewards.vlm.packed import Question

SIZES = [(64, 64), (97, 260), (301, 203), (64, 64)]
IMAGES = [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]
VQA = [["How many dogs are in the image?", "two"], ["Are the dogs brown?", "Yes"], [SPECIAL, "no"], ["?", "7"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen3_vl(tmp_path_factory.mktemp("vlm"), sharded=True)


@pytest.fixture(scope="module")
def vlm(folder: Path) -> Qwen3VL:
    return Qwen3VL(str(folder), device="cpu")


@torch.inference_mode()
def ask_alone(vlm: Qwen3VL, image: np.ndarray, text: str, answer_start: str = "") -> torch.Tensor:
    """The probabilities (V,) of the answer's first token, by one pass for one question, as published scorers do."""
    images = encode_images(vlm.processor, [image])
    text = break_special_tokens(text, vlm.tokenizer)
    whole = f"<|im_start|>user\n{IMAGE}{text}<|im_end|>\n<|im_start|>assistant\n{answer_start}"
    texts = encode_texts(vlm.tokenizer, [whole], images["image_grid_thw"], vlm.processor.merge_size, "left")
    return vlm.network(**images, **texts, use_cache=False).logits[0, -1].float().softmax(dim=-1)


@pytest.mark.parametrize("most", [10**6, 700, 1])
def test_packed_questions_get_the_answers_of_one_pass_each(
    vlm: Qwen3VL, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """In one pass, in several, and in one for each picture; pictures and questions differ in length."""
    monkeypatch.setattr(packed, "MAX_TOKENS", most)
    tokens = ((ord("a"), ord("b")), (ord("Y"),))
    asked = [[Question(text * (index + 1), tokens, "So: ") for text, _ in VQA] for index in range(len(IMAGES))]
    found = packed.ask(vlm, IMAGES, asked)
    for image, questions, answers in zip(IMAGES, asked, found, strict=True):
        for question, logs in zip(questions, answers, strict=True):
            plain = ask_alone(vlm, image, question.text, "So: ")
            expected = [float(plain[list(group)].sum()) for group in tokens]
            np.testing.assert_allclose(logs.exp().numpy(), expected, rtol=1e-4, atol=1e-7)


def test_soft_tifa_is_the_mean_of_the_answers_probabilities(folder: Path, vlm: Qwen3VL) -> None:
    items = [ScoreItem(image, "unused", {"vqa": VQA, "skills": ["count", "b", "b", "count"]}) for image in IMAGES]
    # Each token is a byte here, so the forms "two", "Two" and "2" begin with t, T and 2; a space alone does not count.
    firsts = ["tT2", "yY", "nN", "7sS"]
    reward = rewards.load("soft_tifa", model=str(folder), device="cpu")
    for item, score in zip(items, reward.score(items), strict=True):
        chances = [
            float(ask_alone(vlm, item.image, f"{text} Answer in one word.")[[ord(letter) for letter in letters]].sum())
            for (text, _), letters in zip(VQA, firsts, strict=True)
        ]
        assert score.details is not None
        assert score.details["probabilities"] == pytest.approx(chances, rel=1e-4)
        parts = {"count": (chances[0] + chances[3]) / 2, "b": (chances[1] + chances[2]) / 2}
        assert score.details["parts"] == pytest.approx(parts, rel=1e-4)
        assert score.details["arithmetic"] == pytest.approx(np.mean(chances), rel=1e-4)
        assert score.value == score.details["geometric"] == pytest.approx(np.prod(chances) ** 0.25, rel=1e-4)
    mean = rewards.load("soft_tifa", model=str(folder), device="cpu", mean="arithmetic")
    assert mean.score(items[:1])[0].value == pytest.approx(reward.score(items[:1])[0].details["arithmetic"], rel=1e-5)
    info = describe("soft_tifa", reward)
    assert info.needs_metadata
    assert info.metadata_schema["required"] == ["vqa"]  # type: ignore[index]
    assert reward.score([probe(reward)])[0].value > 0


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "needs metadata with questions and answers"),
        ({"tag": "x"}, "needs metadata with questions and answers"),
        ({"vqa": []}, "no list of"),
        ({"vqa": [["only a question"]]}, "no list of"),
        ({"vqa": [["a", "b", "c"]]}, "no list of"),
        ({"vqa": [["a", 2]]}, "no list of"),
        ({"vqa": [["a", " "]]}, "no question or no answer"),
        ({"vqa": "Is it?"}, "no list of"),
        ({"vqa": [["a", "b"]] * 65}, "no list of"),
        ({"vqa": VQA, "skills": ["count"]}, "one skill for each question"),
        ({"vqa": [["How many?", "127"]]}, "cannot check the answer '127'"),
    ],
)
def test_other_metadata_is_refused(folder: Path, metadata: Any, message: str) -> None:
    reward = rewards.load("soft_tifa", model=str(folder), device="cpu")
    with pytest.raises(InvalidRequestError, match=message):
        reward.score([ScoreItem(IMAGES[0], "a", metadata)])


def test_forms_of_answers() -> None:
    assert list_forms("two") == ["two", " two", "Two", " Two", "2", " 2"]
    assert list_forms("Yes") == ["Yes", " Yes", "yes", " yes"]
    assert list_forms(" 3 ") == ["3", " 3", "three", " three", "Three", " Three"]


def test_vlm_score_is_the_expected_value_of_the_answers(folder: Path, vlm: Qwen3VL) -> None:
    reward = rewards.load("vlm_score", model=str(folder), device="cpu", answers={"good": 2, "bad": -1}, rubric="Is it?")
    question = (
        'The picture was made from the prompt "a cat". Is it? Rate it with one of bad or good, where good is best and '
        "bad is worst. Answer with the rating only."
    )
    (score,) = reward.score([ScoreItem(IMAGES[0], "a cat")])
    plain = ask_alone(vlm, IMAGES[0], question)
    good, bad = (float(plain[[ord(letter) for letter in letters]].sum()) for letters in ("gG", "bB"))
    assert score.value == pytest.approx((2 * good - bad) / (good + bad), rel=1e-4)
    assert score.details == {
        "probabilities": {"good": pytest.approx(good, rel=1e-4), "bad": pytest.approx(bad, rel=1e-4)}
    }
    assert reward.range == (-1, 2)


def test_published_questions(folder: Path, vlm: Qwen3VL) -> None:
    vqascore = rewards.load("vlm_score", model=str(folder), device="cpu", preset="vqascore")
    plain = ask_alone(vlm, IMAGES[1], 'Does this figure show "a cat"? Please answer yes or no.')
    yes = float(plain[[ord("Y"), ord("y")]].sum())
    assert vqascore.score([ScoreItem(IMAGES[1], "a cat")])[0].value == pytest.approx(yes, rel=1e-4)
    unified = rewards.load("vlm_score", model=str(folder), device="cpu", preset="unified_reward")
    (score,) = unified.score([ScoreItem(IMAGES[1], "a {scale} cat")])
    assert 1 <= score.value <= 5
    text = unified.question.write("a {scale} cat")
    assert "Text Caption: [a {scale} cat]" in text
    plain = ask_alone(vlm, IMAGES[1], text, "Final Score: ")
    chances = {str(number): float(plain[ord(str(number))]) for number in range(1, 6)}
    assert score.details == {"probabilities": pytest.approx(chances, rel=1e-4)}
    expected = sum(int(number) * chance for number, chance in chances.items()) / sum(chances.values())
    assert score.value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "clip"}, "known are vqascore, unified_reward"),
        ({"preset": "vqascore", "rubric": "x"}, "leave the other options out"),
        ({"question": "Is it {good}?"}, r"no placeholder \{good\}"),
        ({"question": "Is it?", "rubric": "x"}, r"has no \{rubric\}"),
        ({"answers": {"yes": 1}}, "at least two"),
        ({"answers": {"yes": 1, "no": "0"}}, "finite number"),
        ({"answers": {"yes": 1, "Yes": 0}}, "are the same"),
        ({"answers": {"yes": 1, "yellow": 0}}, "begin with the same token"),
        ({"votes": 3}, "are for an endpoint"),
        ({"votes": 0}, "from 1 to 100"),
        ({"backend": "vllm"}, "write transformers or endpoint"),
    ],
)
def test_wrong_options_are_told(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rewards.load("vlm_score", model=str(folder), device="cpu", **options)


def test_a_wrong_mean_is_told() -> None:
    with pytest.raises(ConfigError, match="write geometric or arithmetic"):
        rewards.load("soft_tifa", mean="harmonic")
