"""GenEval's detector and colour classifier for real pictures: Mask2Former on COCO's classes, and CLIP ViT-L/14.

The detector has the architecture of the benchmark's own detector but was trained separately, so scores may differ a
little from published ones. Pictures are prepared and masks are computed as in the benchmark's detector.
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
from drpo_rewards.rewards.files.model_files import CONFIG, WEIGHTS, ModelFiles
from drpo_rewards.rewards.files.weights import load_pretrained, pick_device, pick_dtype, public_name
from drpo_rewards.rewards.geneval.detector import Detection
from drpo_rewards.rewards.geneval.rules import THRESHOLD
from drpo_rewards.rewards.shared.clip_model import ClipEmbedder, normalize_vectors
from drpo_rewards.rewards.shared.preprocess import check_aspect, pinned

DETECTOR = ModelFiles("model", "facebook/mask2former-swin-small-coco-instance", (CONFIG, WEIGHTS), "MIT", 0.28)
CLIP = replace(clip_reward.MODEL, option="clip", subfolder="clip")

# COCO's eighty classes, in the order of every detector that was trained on it, under GenEval's names. Some of these
# differ from COCO's, such as `computer mouse`, `tv remote` and `computer keyboard`, so classes are mapped by index.
_CLASS_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, computer mouse,
tv remote, computer keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
teddy bear, hair drier, toothbrush
"""
CLASSES: tuple[str, ...] = tuple(name.strip() for name in _CLASS_NAMES.split(","))

LONG, SHORT, MULTIPLE = 1333, 800, 32  # pixels: pictures are scaled into LONG x SHORT, and padded to MULTIPLE
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, of 0..255
TOP = 100  # only this many (query, class) pairs are considered, the most probable ones

COLORS: tuple[str, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {color} {label}", "a photo of a {color}-colored {label}", "a photo of a {color} object")
BACKGROUND = 0x99  # the grey that replaces everything outside an object, 0..255

_MAX_BATCH = 8  # pictures in one batch of the network


@dataclass(frozen=True)
class PreparedPictures:
    """A batch of pictures that are padded to one size.

    Attributes:
        pixels_N3HW: float32, on the CPU.
        indices: the index of each picture among all pictures of the call.
        scaled: height and width of each picture without the padding.
        original: height and width of each picture before it was scaled.
    """

    pixels_N3HW: Tensor
    indices: list[int]
    scaled: list[tuple[int, int]]
    original: list[tuple[int, ...]]


@dataclass(frozen=True)
class DetectedMasks:
    """The detections in one picture. Several of them may share one of the D masks.

    Attributes:
        labels: each detection's class.
        scores: each detection's class probability, 0 to 1.
        rows: each detection's row in `masks_DHW`.
        masks_DHW: bool.
        confidence_D: the network's mean probability inside each mask, 0 to 1.
    """

    labels: list[str]
    scores: list[float]
    rows: list[int]
    masks_DHW: Tensor
    confidence_D: Tensor


class Mask2FormerDetector:
    """Finds COCO's eighty classes. Leaves out detections at or below THRESHOLD, which no rule uses."""

    classes = CLASSES

    def __init__(
        self, model: str = DETECTOR.repo, device: str = "auto", dtype: str = "auto", *, headers_only: bool = False
    ) -> None:
        self.device = pick_device(device, headers_only)
        self.dtype = pick_dtype(dtype, self.device, on_gpu="float32")
        folder = find(DETECTOR, model)
        network: Any = load_pretrained(Mask2FormerForUniversalSegmentation, folder, self.dtype, headers_only)
        if network.config.num_labels != len(CLASSES):
            raise WeightsError(f"{model} has {network.config.num_labels} classes, not COCO's {len(CLASSES)}")
        self.network = network.to(self.device)
        self.checkpoint = public_name(model)

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Return the detections in each (H, W, 3) uint8 picture, the most confident first."""
        return self.detect_prepared(self.prepare(images))

    def prepare(self, images: Sequence[np.ndarray]) -> list[PreparedPictures]:
        """Scale and pad pictures on the CPU, in batches of one padded size."""
        by_size: dict[tuple[int, ...], list[tuple[int, Tensor, tuple[int, int]]]] = {}
        for index, image in enumerate(images):
            pixels_3HW, scaled = prepare_picture(image)
            by_size.setdefault(tuple(pixels_3HW.shape[1:]), []).append((index, pixels_3HW, scaled))
        return [
            PreparedPictures(
                pixels_N3HW=pinned(torch.stack([pixels_3HW for _, pixels_3HW, _ in batch]), self.device),
                indices=[index for index, _, _ in batch],
                scaled=[scaled for _, _, scaled in batch],
                original=[images[index].shape[:2] for index, _, _ in batch],
            )
            for same_size in by_size.values()
            for batch in (same_size[start : start + _MAX_BATCH] for start in range(0, len(same_size), _MAX_BATCH))
        ]

    def detect_prepared(self, batches: Sequence[PreparedPictures]) -> list[list[Detection]]:
        """Return what `detect` returns, for the pictures that `prepare` got."""
        by_index: dict[int, list[Detection]] = {}
        for batch in batches:
            classes_NQC, masks_NQhw = self.predict(batch.pixels_N3HW)
            classes_NQC = classes_NQC.cpu()  # this waits for the GPU; `find_masks` only queues work
            padded = tuple(batch.pixels_N3HW.shape[2:])
            masks = [
                find_masks(classes_QC, masks_Qhw, padded, scaled, original)
                for classes_QC, masks_Qhw, scaled, original in zip(
                    classes_NQC, masks_NQhw, batch.scaled, batch.original, strict=True
                )
            ]
            by_index |= {index: to_detections(detected) for index, detected in zip(batch.indices, masks, strict=True)}
        return [by_index[index] for index in range(len(by_index))]

    @torch.inference_mode()
    def predict(self, pixels_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Compute class logits (N, Q, 81) and mask logits (N, Q, H / 4, W / 4), float32."""
        outputs = self.network(pixel_values=pixels_N3HW.to(self.device, self.dtype, non_blocking=True))
        return outputs.class_queries_logits.float(), outputs.masks_queries_logits.float()


def prepare_picture(image_HW3: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    """Make a picture's padded network input, (3, H, W), and return the height and width of the picture in it too."""
    check_aspect(image_HW3)
    height, width = image_HW3.shape[:2]
    scale = min(LONG / max(height, width), SHORT / min(height, width))
    scaled = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
    pixels_13HW = torch.from_numpy(np.array(image_HW3)).permute(2, 0, 1)[None].double()
    pixels_13HW = functional.interpolate(pixels_13HW, scaled, mode="bilinear", align_corners=False)
    pixels_3HW = (pixels_13HW[0] + 0.5 + 1e-6).floor()  # whole numbers again; with 1e-6 every half rounds up
    mean, std = (pixels_3HW.new_tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    right, below = (-scaled[1] % MULTIPLE, -scaled[0] % MULTIPLE)
    return functional.pad(((pixels_3HW - mean) / std).float(), (0, right, 0, below)), scaled


@torch.inference_mode()
def find_masks(
    classes_QC: Tensor, masks_Qhw: Tensor, padded: tuple[int, ...], scaled: tuple[int, int], original: tuple[int, ...]
) -> DetectedMasks:
    """Compute the masks of the queries whose class probability exceeds THRESHOLD. Does not wait for the GPU.

    The mask logits are scaled to the padded input, cropped to the scaled picture, scaled to the original picture, and
    only then thresholded at 0. If they were thresholded at a lower resolution, boxes would be off by many pixels.
    """
    probabilities = classes_QC.softmax(dim=-1)[:, :-1].flatten()  # the last class is "no object"
    best = probabilities.topk(min(TOP, len(probabilities)))
    kept = best.values > THRESHOLD  # the mask can only lower the score
    scores, indices = best.values[kept], best.indices[kept]
    distinct, rows = (indices // len(CLASSES)).unique(return_inverse=True)
    if not len(distinct):
        return DetectedMasks([], [], [], masks_Qhw.new_zeros((0, *original), dtype=torch.bool), masks_Qhw.new_zeros(0))
    logits_DHW = functional.interpolate(masks_Qhw[distinct][None], padded, mode="bilinear", align_corners=False)
    logits_DHW = logits_DHW[..., : scaled[0], : scaled[1]]
    logits_DHW = functional.interpolate(logits_DHW, original, mode="bilinear", align_corners=False)[0]
    masks_DHW = logits_DHW > 0
    confidence_D = (logits_DHW.sigmoid() * masks_DHW).sum(dim=(1, 2)) / (masks_DHW.sum(dim=(1, 2)) + 1e-6)
    labels = [CLASSES[index % len(CLASSES)] for index in indices.tolist()]
    return DetectedMasks(labels, scores.tolist(), rows.tolist(), masks_DHW, confidence_D)


def to_detections(detected: DetectedMasks) -> list[Detection]:
    """Make detections, the most confident first. A score is the class's probability times the mask's confidence."""
    masks, confidence = detected.masks_DHW.cpu().numpy(), detected.confidence_D.tolist()
    detections = [
        Detection(label, score * confidence[row], bounding_box(masks[row]), masks[row])
        for label, score, row in zip(detected.labels, detected.scores, detected.rows, strict=True)
        if masks[row].any()
    ]
    return sorted(detections, key=lambda detection: -detection.score)


def bounding_box(mask_HW: np.ndarray) -> tuple[float, float, float, float]:
    """Return the tightest box around a mask that is not empty. x2 and y2 are one past its last pixel."""
    columns, rows = np.flatnonzero(mask_HW.any(axis=0)), np.flatnonzero(mask_HW.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class ClipColorClassifier:
    """Names an object's colour with CLIP, three sentences for each colour. The object is cropped and shown on grey."""

    colors = COLORS
    is_quick = False

    def __init__(
        self, model: str = CLIP.repo, device: str = "auto", dtype: str = "auto", *, headers_only: bool = False
    ) -> None:
        torch_device = pick_device(device, headers_only)
        torch_dtype = pick_dtype(dtype, torch_device, on_gpu="float32")
        # The benchmark's CLIP is open_clip's, whose crop rounds.
        self.clip = ClipEmbedder.load(find(CLIP, model), "round", torch_device, torch_dtype, headers_only)
        self._color_vectors: dict[str, Tensor] = {}

    def classify(self, image: np.ndarray, detections: Sequence[Detection]) -> list[str]:
        """Return one colour name per detection in `image`, (H, W, 3) uint8 RGB, in the detections' order."""
        if not detections:
            return []
        objects_ND = self.clip.embed_images([cut_out(image, detection) for detection in detections])
        return [
            COLORS[int((self._embed_colors(detection.label) @ object_D).argmax())]
            for object_D, detection in zip(objects_ND, detections, strict=True)
        ]

    def _embed_colors(self, label: str) -> Tensor:
        """Return (colours, D) unit vectors of the colours of one class of objects. They are computed once per class."""
        if label not in self._color_vectors:
            sentences = [template.format(color=color, label=label) for color in COLORS for template in TEMPLATES]
            vectors = self.clip.embed_prompts(sentences).unflatten(0, (len(COLORS), len(TEMPLATES)))
            self._color_vectors[label] = normalize_vectors(vectors.mean(dim=1))
        return self._color_vectors[label]


def cut_out(image: np.ndarray, detection: Detection) -> np.ndarray:
    """Crop the image to the object's box, with grey outside the object's mask."""
    on_grey = np.where(detection.mask[..., None], image, np.uint8(BACKGROUND))
    x1, y1, x2, y2 = (int(edge) for edge in detection.box)
    return on_grey[y1:y2, x1:x2]
