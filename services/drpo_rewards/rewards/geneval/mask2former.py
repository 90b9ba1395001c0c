"""GenEval's detector and colour classifier on real pictures: Mask2Former on COCO's classes, and CLIP ViT-L/14.

The detector has the architecture of the benchmark's own but was trained apart, so scores may differ a little from
published ones. Pictures are prepared, and masks made from what comes out, as the benchmark's detector did it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Mask2FormerForUniversalSegmentation

from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards import clip as clip_reward
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.parts import CONFIG, WEIGHTS, Part
from drpo_rewards.rewards.files.weights import load_pretrained, pick_device, pick_dtype, public_name
from drpo_rewards.rewards.geneval.coco import CLASSES
from drpo_rewards.rewards.geneval.detector import Detection
from drpo_rewards.rewards.geneval.rules import THRESHOLD
from drpo_rewards.rewards.shared.clip_model import ClipEmbedder, unit
from drpo_rewards.rewards.shared.preprocess import check_aspect, pinned

DETECTOR = Part("model", "facebook/mask2former-swin-small-coco-instance", (CONFIG, WEIGHTS), "MIT", 0.28)
CLIP = replace(clip_reward.MODEL, option="clip", inside="clip")

LONG, SHORT, MULTIPLE = 1333, 800, 32  # pixels: what a picture is scaled into, and what its sides are padded to
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, of 0..255
TOP = 100  # (query, class) pairs that are looked at

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {color} {label}", "a photo of a {color}-colored {label}", "a photo of a {color} object")
BACKGROUND = 0x99

_AT_ONCE = 8  # pictures that go through the detector together


@dataclass(frozen=True)
class PreparedPictures:
    """A batch of pictures that are padded to one size."""

    pixels: Tensor  # (N, 3, H, W), on the CPU
    indices: list[int]  # which pictures of the whole they are
    scaled: list[tuple[int, int]]  # height and width of each without the padding
    original: list[tuple[int, ...]]  # and before it was scaled


@dataclass(frozen=True)
class FoundMasks:
    """One picture's detections; several may share a mask, and `rows` says which."""

    labels: list[str]
    scores: list[float]
    rows: list[int]
    masks_DHW: Tensor
    sure_D: Tensor


class Mask2FormerDetector:
    """Finds COCO's eighty classes. Detections that no rule would keep are left out: at most THRESHOLD confident."""

    classes = CLASSES

    def __init__(self, model: str = DETECTOR.repo, device: str = "auto", dtype: str = "auto") -> None:
        self.device = pick_device(device)
        precision = pick_dtype(dtype, self.device, on_gpu="float32")
        network: Any = load_pretrained(Mask2FormerForUniversalSegmentation, find(DETECTOR, model), precision)
        if network.config.num_labels != len(CLASSES):
            raise WeightsError(f"{model} tells {network.config.num_labels} classes apart, not COCO's {len(CLASSES)}")
        self.network = network.to(self.device)
        self.dtype = precision
        self.checkpoint = public_name(model)

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Detections of each (H, W, 3) uint8 picture, best first."""
        return self.detect_prepared(self.prepare(images))

    def prepare(self, images: Sequence[np.ndarray]) -> list[PreparedPictures]:
        """Batches of pictures that are padded to one size, scaled on the CPU."""
        by_size: dict[tuple[int, ...], list[tuple[int, Tensor, tuple[int, int]]]] = {}
        for index, image in enumerate(images):
            pixels_3HW, scaled = prepare(image)
            by_size.setdefault(tuple(pixels_3HW.shape[1:]), []).append((index, pixels_3HW, scaled))
        return [
            PreparedPictures(
                pixels=pinned(torch.stack([pixels for _, pixels, _ in part]), self.device),
                indices=[index for index, _, _ in part],
                scaled=[scaled for _, _, scaled in part],
                original=[images[index].shape[:2] for index, _, _ in part],
            )
            for same in by_size.values()
            for part in (same[start : start + _AT_ONCE] for start in range(0, len(same), _AT_ONCE))
        ]

    def detect_prepared(self, batches: Sequence[PreparedPictures]) -> list[list[Detection]]:
        found: dict[int, list[Detection]] = {}
        for batch in batches:
            classes_NQC, masks_NQhw = self.predict(batch.pixels)
            classes_NQC = classes_NQC.cpu()  # once for all pictures; what follows on the GPU is only set going
            padded = tuple(batch.pixels.shape[2:])
            started = [
                find_masks(classes_QC, masks_Qhw, padded, scaled, original)
                for classes_QC, masks_Qhw, scaled, original in zip(
                    classes_NQC, masks_NQhw, batch.scaled, batch.original, strict=True
                )
            ]
            found |= {index: collect(masks) for index, masks in zip(batch.indices, started, strict=True)}
        return [found[index] for index in range(len(found))]

    @torch.inference_mode()
    def predict(self, pixels_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (N, Q, 81) and mask logits (N, Q, H / 4, W / 4), float32."""
        outputs = self.network(pixel_values=pixels_N3HW.to(self.device, self.dtype, non_blocking=True))
        return outputs.class_queries_logits.float(), outputs.masks_queries_logits.float()


def prepare(image_HW3: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    """The padded network input (3, H, W) of a picture, and the height and width of the picture in it."""
    check_aspect(image_HW3)
    height, width = image_HW3.shape[:2]
    scale = min(LONG / max(height, width), SHORT / min(height, width))
    scaled = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
    pixels_13HW = torch.from_numpy(np.array(image_HW3)).permute(2, 0, 1)[None].double()
    pixels_13HW = functional.interpolate(pixels_13HW, scaled, mode="bilinear", align_corners=False)
    pixels_3HW = (pixels_13HW[0] + 0.5 + 1e-6).floor()  # whole colours again; a half goes up, however it was summed
    mean, std = (pixels_3HW.new_tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    right, below = (-scaled[1] % MULTIPLE, -scaled[0] % MULTIPLE)
    return functional.pad(((pixels_3HW - mean) / std).float(), (0, right, 0, below)), scaled


def detections(
    classes_QC: Tensor, masks_Qhw: Tensor, padded: tuple[int, ...], scaled: tuple[int, int], original: tuple[int, ...]
) -> list[Detection]:
    """What one picture's class and mask logits say, best first."""
    return collect(find_masks(classes_QC, masks_Qhw, padded, scaled, original))


@torch.inference_mode()
def find_masks(
    classes_QC: Tensor, masks_Qhw: Tensor, padded: tuple[int, ...], scaled: tuple[int, int], original: tuple[int, ...]
) -> FoundMasks:
    """Masks of the queries that are sure enough of a class; nothing waits for the GPU where the masks lie.

    Masks are scaled to the padded input, freed of the padding, scaled to the picture, and only then cut at 0: cut at a
    lower resolution, boxes are many pixels off.
    """
    probabilities = classes_QC.softmax(dim=-1)[:, :-1].flatten()  # the last class is: nothing
    best = probabilities.topk(min(TOP, len(probabilities)))
    wanted = best.values > THRESHOLD  # a mask can only lower it
    scores, places = best.values[wanted], best.indices[wanted]
    distinct, rows = (places // len(CLASSES)).unique(return_inverse=True)
    if not len(distinct):
        return FoundMasks([], [], [], masks_Qhw.new_zeros((0, *original), dtype=torch.bool), masks_Qhw.new_zeros(0))
    logits_DHW = functional.interpolate(masks_Qhw[distinct][None], padded, mode="bilinear", align_corners=False)
    logits_DHW = logits_DHW[..., : scaled[0], : scaled[1]]
    logits_DHW = functional.interpolate(logits_DHW, original, mode="bilinear", align_corners=False)[0]
    masks_DHW = logits_DHW > 0
    sure_D = (logits_DHW.sigmoid() * masks_DHW).sum(dim=(1, 2)) / (masks_DHW.sum(dim=(1, 2)) + 1e-6)
    labels = [CLASSES[place % len(CLASSES)] for place in places.tolist()]
    return FoundMasks(labels, scores.tolist(), rows.tolist(), masks_DHW, sure_D)


def collect(found: FoundMasks) -> list[Detection]:
    """Detections, best first, whose score is the class's probability times how sure the mask is of its own pixels."""
    masks, sure = found.masks_DHW.cpu().numpy(), found.sure_D.tolist()
    detected = [
        Detection(label, score * sure[row], bounding_box(masks[row]), masks[row])
        for label, score, row in zip(found.labels, found.scores, found.rows, strict=True)
        if masks[row].any()
    ]
    return sorted(detected, key=lambda detection: -detection.score)


def bounding_box(mask_HW: np.ndarray) -> tuple[float, float, float, float]:
    """The tightest box around a mask that is not empty; x2 and y2 lie one past its last pixel."""
    columns, rows = np.flatnonzero(mask_HW.any(axis=0)), np.flatnonzero(mask_HW.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class ClipColorClassifier:
    """Names the colour of an object, shown on grey and cut out, with CLIP and three sentences for every colour."""

    colors = COLORS

    def __init__(self, model: str = CLIP.repo, device: str = "auto", dtype: str = "auto") -> None:
        place = pick_device(device)
        # The benchmark's CLIP is open_clip's, whose crop rounds.
        self.clip = ClipEmbedder.load(find(CLIP, model), "round", place, pick_dtype(dtype, place, on_gpu="float32"))
        self._of_label: dict[str, Tensor] = {}

    def classify(self, image: np.ndarray, detections: Sequence[Detection]) -> list[str]:
        """One colour name per detection of `image`, (H, W, 3) uint8 RGB, in the detections' order."""
        if not detections:
            return []
        seen_ND = self.clip.embed_images([cut_out(image, detection) for detection in detections])
        names = []
        for seen_D, detection in zip(seen_ND, detections, strict=True):
            names.append(COLORS[int((self._colors_of(detection.label) @ seen_D).argmax())])
        return names

    def _colors_of(self, label: str) -> Tensor:
        """(colours, D) unit vectors for objects of one class; there are eighty, so they are kept."""
        if label not in self._of_label:
            sentences = [template.format(color=color, label=label) for color in COLORS for template in TEMPLATES]
            vectors = self.clip.embed_prompts(sentences).unflatten(0, (len(COLORS), len(TEMPLATES)))
            self._of_label[label] = unit(vectors.mean(dim=1))
        return self._of_label[label]


def cut_out(image: np.ndarray, detection: Detection) -> np.ndarray:
    """The object alone: everything beside its mask is grey, and then it is cropped to its box."""
    alone = np.where(detection.mask[..., None], image, np.uint8(BACKGROUND))
    x1, y1, x2, y2 = (int(edge) for edge in detection.box)
    return alone[y1:y2, x1:x2]
