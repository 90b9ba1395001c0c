"""GenEval with Mask2Former and CLIP on tiny checkpoints: all but the networks is computed again in plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import plain
from support.images import picture
from support.tiny.clip import HEADS, LAYERS, write_clip
from support.tiny.mask2former import write_mask2former

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError, InvalidRequestError, WeightsError
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.checks import check_scores, probe
from drpo_rewards.rewards.geneval.detector import Detection
from drpo_rewards.rewards.geneval.mask2former import CLASSES, COLORS, find_masks, prepare_picture, to_detections
from drpo_rewards.rewards.geneval.reward import GenevalReward

pytestmark = pytest.mark.thorough

IMAGES = [picture(128, 96, seed=1), picture(97, 130, "L", seed=2), picture(128, 96, seed=3), picture(60, 40, seed=4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_mask2former(tmp_path_factory.mktemp("geneval"))
    write_clip(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def geneval(folder: Path) -> GenevalReward:
    return rewards.load("geneval", model=str(folder), device="cpu")  # type: ignore[return-value]


def stretched(plane: plain.Array, height: int, width: int) -> plain.Array:
    """Scale planes to (height, width): bilinear between the centres of pixels, without antialiasing."""

    def weights(old: int, new: int) -> plain.Array:
        matrix = np.zeros((new, old))
        for place in range(new):
            centre = max((place + 0.5) * old / new - 0.5, 0)
            low = min(int(centre), old - 1)
            high = min(low + 1, old - 1)
            matrix[place, low] += 1 - (centre - low)
            matrix[place, high] += centre - low
        return matrix

    return weights(plane.shape[-2], height) @ plane @ weights(plane.shape[-1], width).T


def plain_pixels(image: np.ndarray) -> tuple[plain.Array, tuple[int, int]]:
    height, width = image.shape[:2]
    scale = min(1333 / max(height, width), 800 / min(height, width))
    new = int(height * scale + 0.5), int(width * scale + 0.5)
    planes = np.floor(stretched(image.transpose(2, 0, 1).astype(float), *new) + 0.5 + 1e-6)
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    canvas = np.zeros((3, (new[0] + 31) // 32 * 32, (new[1] + 31) // 32 * 32))
    canvas[:, : new[0], : new[1]] = (planes - mean[:, None, None]) / std[:, None, None]
    return canvas, new


def plain_detections(
    classes: plain.Array, masks: plain.Array, padded: tuple[int, int], scaled: tuple[int, int], image: tuple[int, int]
) -> list[tuple[str, float, tuple[int, int, int, int]]]:
    """Compute the score of every query and class, then drop those at or below the threshold."""
    probabilities = plain.softmax(classes)[:, :80]
    order = np.argsort(-probabilities, axis=None)[:100]
    full = stretched(stretched(masks, *padded)[:, : scaled[0], : scaled[1]], *image)
    found = []
    for query, label in zip(*np.unravel_index(order, probabilities.shape), strict=True):
        inside = full[query] > 0
        if inside.any():
            sure = (1 / (1 + np.exp(-full[query][inside]))).sum() / (inside.sum() + 1e-6)
            ys, xs = np.nonzero(inside)
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            found.append((CLASSES[label], float(probabilities[query, label] * sure), box))
    return sorted((detection for detection in found if detection[1] > 0.3), key=lambda detection: -detection[1])


@pytest.mark.parametrize("size", [(128, 96), (97, 131), (1500, 40), (8, 8), (900, 1400)])
def test_pixels(size: tuple[int, int]) -> None:
    image = picture(*size, seed=7)
    pixels, scaled = prepare_picture(image)
    expected, expected_scaled = plain_pixels(image)
    assert scaled == expected_scaled
    np.testing.assert_allclose(pixels.numpy(), expected, rtol=0, atol=1e-6)


def test_detections_of_the_network(geneval: GenevalReward) -> None:
    """A batch of several sizes gives the same detections as each picture alone."""
    together = geneval.detector.detect(IMAGES)
    assert sum(map(len, together)) > 4
    for image, found in zip(IMAGES, together, strict=True):
        pixels, scaled = plain_pixels(image)
        classes, masks = geneval.detector.predict(torch.from_numpy(pixels)[None].float())  # type: ignore[attr-defined]
        expected = plain_detections(
            classes[0].double().numpy(), masks[0].double().numpy(), pixels.shape[1:], scaled, image.shape[:2]
        )
        kept = [detection for detection in found if detection.score > 0.3]
        assert [detection.label for detection in kept] == [label for label, _, _ in expected]
        assert [detection.score for detection in kept] == pytest.approx([score for _, score, _ in expected], abs=1e-5)
        assert [detection.box for detection in kept] == [box for _, _, box in expected]
        alone = geneval.detector.detect([image])[0]
        assert [(detection.label, detection.box) for detection in alone] == [
            (detection.label, detection.box) for detection in found
        ]


def test_detections_of_random_logits() -> None:
    """The logits have blobs of many sizes, confidences around the threshold, and padding on both sides."""
    random = np.random.default_rng(5)
    for _ in range(20):
        image = tuple(int(n) for n in random.integers(20, 90, 2))
        scaled = (int(image[0] * 1.7), int(image[1] * 1.7))
        padded = tuple((n + 31) // 32 * 32 for n in scaled)
        classes = random.normal(size=(6, 81)) * 4
        masks = stretched(random.normal(size=(6, 4, 4)) * 6 - 3, padded[0] // 4, padded[1] // 4)
        logits = torch.from_numpy(classes).float(), torch.from_numpy(masks).float()
        found = to_detections(find_masks(*logits, padded, scaled, image))
        expected = plain_detections(classes, masks, padded, scaled, image)  # type: ignore[arg-type]
        kept = [detection for detection in found if detection.score > 0.3]
        assert [(detection.label, detection.box) for detection in kept] == [(label, box) for label, _, box in expected]
        assert [detection.score for detection in kept] == pytest.approx([score for _, score, _ in expected], abs=1e-5)


def plain_color(folder: Path, image: np.ndarray, detection: Detection) -> tuple[str, float]:
    """Return the colour, and its lead over the next one."""
    weights = plain.read(folder / "clip" / "model.safetensors")
    alone = image.copy()
    alone[~detection.mask] = 153
    x1, y1, x2, y2 = map(int, detection.box)
    seen = plain.clip_image(weights, plain.cropped(alone[y1:y2, x1:x2], rounding=True), HEADS, LAYERS)
    agreements = []
    for color in ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]:
        label = detection.label
        sentences = (
            f"a photo of a {color} {label}",
            f"a photo of a {color}-colored {label}",
            f"a photo of a {color} object",
        )
        texts = [
            plain.unit(plain.clip_text(weights, plain.clip_ids(folder / "clip", sentence), HEADS, LAYERS))
            for sentence in sentences
        ]
        agreements.append(float(plain.unit(np.mean(texts, axis=0)) @ plain.unit(seen)))
    ranked = np.sort(agreements)
    return COLORS[int(np.argmax(agreements))], ranked[-1] - ranked[-2]


def test_colors(geneval: GenevalReward, folder: Path) -> None:
    image = picture(90, 70, seed=8)
    objects = []
    for index, (x, y, width, height) in enumerate([(5, 5, 30, 20), (40, 10, 13, 47), (0, 0, 90, 70), (60, 60, 9, 8)]):
        mask = np.zeros((70, 90), dtype=bool)
        mask[y : y + height, x : x + width] = True
        mask[y + 1 : y + 4, x + 1 : x + 3] = False
        objects.append(Detection(CLASSES[index * 20], 0.9, (x, y, x + width, y + height), mask))
    names = geneval.color_classifier.classify(image, objects)
    for name, one in zip(names, objects, strict=True):
        expected, ahead = plain_color(folder, image, one)
        assert name == expected or ahead < 1e-6
    assert geneval.color_classifier.classify(image, []) == []


def test_it_scores_a_prompts_demands(geneval: GenevalReward) -> None:
    image = IMAGES[0]
    label = geneval.detector.detect([image])[0][0].label
    items = [
        ScoreItem(image, "", {"tag": "single_object", "include": [{"class": label}]}),
        ScoreItem(image, "", {"tag": "single_object", "include": [{"class": next(c for c in CLASSES if c != label)}]}),
    ]
    score, _ = check_scores("geneval", geneval.score(items), items)
    assert score.value == 1
    assert score.details is not None
    assert label in {one["class"] for one in score.details["objects"]}
    assert not any("color" in one for one in score.details["objects"])  # no rule asks, and CLIP takes time
    assert geneval.version == "geneval-1/mask2former/graded"
    assert len(check_scores("geneval", geneval.score([probe(geneval)]), [probe(geneval)])) == 1
    with pytest.raises(InvalidRequestError, match="class 'keyboard'"):
        geneval.score([ScoreItem(image, "", {"include": [{"class": "keyboard"}]})])


def test_the_classes_have_genevals_names() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 80
    assert [CLASSES.index(name) for name in ("person", "computer mouse", "tv remote", "computer keyboard")] == [
        0,
        64,
        65,
        66,
    ]
    assert CLASSES[79] == "toothbrush"


def test_models_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    file = write_mask2former(tmp_path) / "model.safetensors"
    keys = load_file(file)
    removed = next(name for name in keys if name.startswith("class_predictor"))
    save_file({name: tensor for name, tensor in keys.items() if name != removed}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"1 missing \\({removed}"):
        rewards.load("geneval", model=str(tmp_path), clip=str(folder / "clip"), device="cpu")
    with pytest.raises(ConfigError, match="shapes detector has no model"):
        rewards.load("geneval", detector="shapes", model=str(folder))
