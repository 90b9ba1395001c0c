"""The GenEval reward: a detector and a colour classifier, and the rules over what they see."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from drpo_rewards.api.contract import GenevalSpec, parse
from drpo_rewards.errors import ConfigError, InvalidRequestError
from drpo_rewards.rewards.base import Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.parts import Part
from drpo_rewards.rewards.geneval.detector import ColorClassifier, Detection, Detector, StagedDetector
from drpo_rewards.rewards.geneval.rules import RELATIONS, judge

Prepared = tuple[Sequence[ScoreItem], list[GenevalSpec], Any]  # the last: pictures as the detector takes them

# Name of a detector to (its class, the class of the colour classifier that goes with it). Nothing is imported early.
DETECTORS: dict[str, tuple[str, str]] = {
    "shapes": (
        "drpo_rewards.rewards.geneval.shapes_detector:ShapesDetector",
        "drpo_rewards.rewards.geneval.shapes_detector:ShapesColorClassifier",
    ),
    "mask2former": (
        "drpo_rewards.rewards.geneval.mask2former:Mask2FormerDetector",
        "drpo_rewards.rewards.geneval.mask2former:ClipColorClassifier",
    ),
}


class GenevalReward(StagedReward):
    """Does the picture show the objects, counts, colours and positions that the prompt asks for?

    Needs a GenEval spec as the request's metadata. `score` says which number ranks: "graded", the share of the
    sub-checks that are met, or "strict", the benchmark's 0 or 1; both always stand in the details, with reasons.

    `detector` is "shapes", which finds the eight shapes of the embedded world and needs no model, or "mask2former",
    COCO's eighty classes in real pictures; naming a `model` chooses the latter. `model` is Mask2Former's folder or hub
    id, `clip` that of the CLIP which names colours: by default the subfolder `clip` of `model`, else OpenAI's ViT-L/14.
    """

    license = "MIT (rules, Mask2Former, CLIP)"
    range = (0.0, 1.0)
    needs_metadata = True
    download_options: ClassVar = {"detector": "mask2former"}  # of `drpo-rewards download geneval`: shapes has no files

    def __init__(
        self,
        detector: str | None = None,
        score: Literal["graded", "strict"] = "graded",
        model: str | None = None,
        clip: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        detector = _detector_name(detector, model)
        if score not in ("graded", "strict"):
            raise ConfigError(f"geneval: score is {score!r}; write graded or strict")
        if detector not in DETECTORS:
            raise ConfigError(f"geneval: no detector {detector!r}; known are {', '.join(DETECTORS)}")
        detector_path, colors_path = DETECTORS[detector]
        eyes: dict[str, Any] = {}
        colors: dict[str, Any] = {}
        if detector == "mask2former":
            eyes, colors = _model_options(model, clip, device, dtype)
        elif model is not None or clip is not None:
            raise ConfigError(f"geneval: the {detector} detector has no model; leave `model` and `clip` out")
        self.detector: Detector = _load(detector_path)(**eyes)
        self.color_classifier: ColorClassifier = _load(colors_path)(**colors)
        self.kind = score
        self.checkpoint: str | None = getattr(self.detector, "checkpoint", None)  # the detector may have no model
        self.version = f"geneval-1/{detector}/{score}"
        self.description = f"GenEval's rules with the {detector} detector, {score} score"
        self.probe = ScoreItem(
            image=np.full((64, 64, 3), 127, dtype=np.uint8),
            prompt="a readiness probe",
            metadata={"tag": "single_object", "include": [{"class": self.detector.classes[0]}]},
        )

    @staticmethod
    def parts(detector: str | None = None, model: str | None = None, **options: Any) -> tuple[Part, ...]:
        if _detector_name(detector, model) != "mask2former":
            return ()
        from drpo_rewards.rewards.geneval.mask2former import CLIP, DETECTOR

        return (DETECTOR, CLIP)

    def prepare(self, items: Sequence[ScoreItem]) -> Prepared:
        specs, images = self._specs(items), [item.image for item in items]
        return items, specs, self.detector.prepare(images) if isinstance(self.detector, StagedDetector) else images

    def score_prepared(self, prepared: Prepared) -> list[Score]:
        items, specs, pictures = prepared
        if isinstance(self.detector, StagedDetector):
            found = self.detector.detect_prepared(pictures)
        else:
            found = self.detector.detect(pictures)
        return [self._score_one(*one) for one in zip(items, specs, found, strict=True)]

    def _score_one(self, item: ScoreItem, spec: GenevalSpec, detections: Sequence[Detection]) -> Score:
        verdict = judge(spec, detections, lambda some: self.color_classifier.classify(item.image, some))
        value = float(verdict.strict) if self.kind == "strict" else verdict.graded
        return Score(value, {"strict": verdict.strict, "graded": verdict.graded, "reasons": verdict.reasons})

    def _specs(self, items: Sequence[ScoreItem]) -> list[GenevalSpec]:
        """Each item's spec; the images of a group share their metadata, so each is read and checked once."""
        known: dict[int, GenevalSpec] = {}
        for item in items:
            if id(item.metadata) not in known:
                known[id(item.metadata)] = self._check(item.metadata)
        return [known[id(item.metadata)] for item in items]

    def _check(self, metadata: dict[str, Any] | None) -> GenevalSpec:
        """The spec in `metadata`; raises InvalidRequestError where it asks for what the detector cannot see."""
        if metadata is None:
            raise InvalidRequestError("geneval needs the prompt's GenEval spec as `metadata`", field="metadata")
        try:
            spec = parse(GenevalSpec, metadata)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"metadata is no GenEval spec: {error}", field="metadata") from None
        for clause in [*spec.include, *spec.exclude]:
            _check_known("class", clause.class_, self.detector.classes)
            if clause.color is not None:
                _check_known("color", clause.color, self.color_classifier.colors)
            if clause.position is not None:
                _check_known("position", clause.position[0], RELATIONS)
        return spec


def _detector_name(detector: str | None, model: str | None) -> str:
    return detector or ("shapes" if model is None else "mask2former")


def _model_options(
    model: str | None, clip: str | None, device: str, dtype: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the detector and of the colour classifier."""
    from drpo_rewards.rewards.geneval.mask2former import CLIP, DETECTOR

    options = {"model": model, "clip": clip}
    place = {"device": device, "dtype": dtype}
    return {**place, "model": DETECTOR.place(options)}, {**place, "model": CLIP.place(options)}


def _check_known(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidRequestError(
            f"metadata asks for {what} {value!r}; the detector knows {', '.join(known)}", field="metadata"
        )


def _load(path: str) -> Callable[..., Any]:
    module_name, _, name = path.partition(":")
    return getattr(importlib.import_module(module_name), name)
