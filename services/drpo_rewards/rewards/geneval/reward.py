"""The GenEval reward: a detector and a colour classifier, and the rules that check what they find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from drpo_rewards.api.contract import Metric, parse
from drpo_rewards.api.geneval import GenevalSpec
from drpo_rewards.api.shapes import RELATIONS
from drpo_rewards.errors import ConfigError, InvalidRequestError
from drpo_rewards.rewards.base import Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.geneval import prompts, templates
from drpo_rewards.rewards.geneval.detector import ColorClassifier, Detection, Detector, StagedDetector
from drpo_rewards.rewards.geneval.rules import THRESHOLD, judge, keep

HOW_TO_SEND = (
    "in the request's body over HTTP; `metadata=` of RankingClient; --metadata FILE on the command line; with Cohere's "
    "SDK request_options={'additional_body_parameters': {'metadata': ...}}; with OpenAI's and LiteLLM's extra_body"
)

Prepared = tuple[Sequence[ScoreItem], list[GenevalSpec], Any]  # the last: what the detector takes


@dataclass(frozen=True)
class ModelOptions:
    """The options of GenevalReward that concern its models."""

    model: str | None
    clip: str | None
    device: str
    dtype: str
    headers_only: bool


class GenevalReward(StagedReward):
    """Does the picture show the objects, counts, colours and positions that the prompt asks for?

    The score is 0 to 1. A request has a GenEval spec as its metadata. Without one, a prompt is read that follows one of
    GenEval's templates, or with the shapes detector a simple prompt about shapes; others are refused.
    The details of every score have both numbers, "strict" and "graded"; "reasons", a list with one sentence for each
    demand that is not met; and "objects", what was found in the picture, each with its class, score, box, and colour if
    that was looked at.

    Args:
        detector: "shapes" finds the eight shapes of the embedded world and has no model. "mask2former" finds COCO's
            eighty classes in real pictures. By default "mask2former" if `model` is given, otherwise "shapes".
        score: the number that is the score. "graded" is the mean of all checks, each 0 to 1; "strict" is the
            benchmark's own score, 0 or 1.
        model: Mask2Former's folder or hub id.
        clip: the folder or hub id of the CLIP that names colours; by default the subfolder `clip` of `model` if that
            exists, otherwise OpenAI's ViT-L/14.
        device, dtype: of both models, see `files/weights.py`.
        headers_only: see `files/weights.py`.
    """

    license = "MIT (rules, Mask2Former, CLIP)"
    range = (0.0, 1.0)
    needs_metadata = True
    metadata_schema: ClassVar = {
        **GenevalSpec.model_json_schema(),
        "examples": [{"include": [{"class": "circle", "color": "red"}]}],
    }
    metrics = (
        Metric(name="strict", description="GenEval's own score: every demand is met", unit="share"),
        Metric(name="graded", description="mean of the checks, each the share of a demand that is met", unit="share"),
    )
    # What `drpo-rewards download geneval` fetches without options, because the default detector has no files.
    download_options: ClassVar = {"detector": "mask2former"}

    def __init__(
        self,
        detector: str | None = None,
        score: Literal["graded", "strict"] = "graded",
        model: str | None = None,
        clip: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        *,
        headers_only: bool = False,
    ) -> None:
        detector = _detector_name(detector, model)
        if score not in ("graded", "strict"):
            raise ConfigError(f"geneval: score is {score!r}; write graded or strict")
        if detector not in DETECTORS:
            raise ConfigError(f"geneval: no detector {detector!r}; known are {', '.join(DETECTORS)}")
        build = DETECTORS[detector]
        self.detector, self.color_classifier = build(ModelOptions(model, clip, device, dtype, headers_only))
        self.kind = score
        self.reads_shapes = detector == "shapes"
        self.needs_in_prompt = _needs_in_prompt(self.reads_shapes)
        self.checkpoint: str | None = getattr(self.detector, "checkpoint", None)  # the detector may have no model
        self.version = f"geneval-1/{detector}/{score}"
        self.description = f"GenEval's rules with the {detector} detector, {score} score"
        self.probe = ScoreItem(
            image=np.full((64, 64, 3), 127, dtype=np.uint8),
            prompt="a readiness probe",
            metadata={"tag": "single_object", "include": [{"class": self.detector.classes[0]}]},
        )

    @staticmethod
    def files(detector: str | None = None, model: str | None = None, **options: Any) -> tuple[ModelFiles, ...]:
        if _detector_name(detector, model) != "mask2former":
            return ()
        from drpo_rewards.rewards.geneval.mask2former import CLIP, DETECTOR

        return (DETECTOR, CLIP)

    def prepare(self, items: Sequence[ScoreItem]) -> Prepared:
        specs, images = self._parse_specs(items), [item.image for item in items]
        return items, specs, self.detector.prepare(images) if isinstance(self.detector, StagedDetector) else images

    def score_prepared(self, prepared: Prepared) -> list[Score]:
        items, specs, pictures = prepared
        if isinstance(self.detector, StagedDetector):
            detections = self.detector.detect_prepared(pictures)
        else:
            detections = self.detector.detect(pictures)
        return [self._score_image(*arguments) for arguments in zip(items, specs, detections, strict=True)]

    def _score_image(self, item: ScoreItem, spec: GenevalSpec, detections: Sequence[Detection]) -> Score:
        colors: dict[int, str] = {}  # by the identity of the detection

        def name_colors(objects: Sequence[Detection]) -> list[str]:
            names = self.color_classifier.classify(item.image, objects)
            colors.update(zip(map(id, objects), names, strict=True))
            return names

        verdict = judge(spec, detections, name_colors)
        found = [detection for objects in keep(detections, THRESHOLD).values() for detection in objects]
        if self.color_classifier.is_quick:
            name_colors([detection for detection in found if id(detection) not in colors])
        details = {
            "strict": verdict.strict,
            "graded": verdict.graded,
            "reasons": verdict.reasons,
            "objects": [_describe(detection, colors.get(id(detection))) for detection in found],
        }
        return Score(float(verdict.strict) if self.kind == "strict" else verdict.graded, details)

    @staticmethod
    def check_request(prompt: str, metadata: Mapping[str, Any] | None, **options: Any) -> None:
        """Check what is asked as `score` will."""
        if _detector_name(options.get("detector"), options.get("model")) == "shapes":
            from drpo_rewards.rewards.geneval.shapes_detector import ShapesColorClassifier, ShapesDetector

            _find_spec(prompt, metadata, ShapesDetector.classes, ShapesColorClassifier.colors, shapes=True)
        else:
            from drpo_rewards.rewards.geneval.mask2former import CLASSES, COLORS

            _find_spec(prompt, metadata, CLASSES, COLORS, shapes=False)

    def _parse_specs(self, items: Sequence[ScoreItem]) -> list[GenevalSpec]:
        """Return each item's spec. The images of a group share prompt and metadata, so each pair is parsed once."""
        specs: dict[tuple[int, str], GenevalSpec] = {}
        keys = [(id(item.metadata), item.prompt) for item in items]
        for key, item in zip(keys, items, strict=True):
            if key not in specs:
                specs[key] = self._parse_spec(item)
        return [specs[key] for key in keys]

    def _parse_spec(self, item: ScoreItem) -> GenevalSpec:
        classes, colors = self.detector.classes, self.color_classifier.colors
        return _find_spec(item.prompt, item.metadata, classes, colors, shapes=self.reads_shapes)


def _needs_in_prompt(shapes: bool) -> str:
    return f"without metadata: a form like {prompts.EXAMPLES if shapes else templates.EXAMPLES}"


def _find_spec(
    prompt: str, metadata: Mapping[str, Any] | None, classes: Sequence[str], colors: Sequence[str], *, shapes: bool
) -> GenevalSpec:
    """Parse the spec of a request. Raises InvalidRequestError if it has none, or one that the detector cannot check."""
    if metadata is None:
        metadata = prompts.read_spec(prompt) if shapes else templates.read_template(prompt, classes, colors)
    if metadata is None:
        message = f"geneval needs the prompt's GenEval spec as `metadata` ({HOW_TO_SEND}); {_needs_in_prompt(shapes)}"
        raise InvalidRequestError(message, field="metadata")
    return _read_metadata(metadata, classes, colors)


def _describe(detection: Detection, color: str | None) -> dict[str, Any]:
    """Describe a detection for the details of a score."""
    box = [round(float(edge), 1) for edge in detection.box]
    described = {"class": detection.label, "score": round(float(detection.score), 4), "box": box}
    return described if color is None else described | {"color": color}


def _read_metadata(metadata: Mapping[str, Any], classes: Sequence[str], colors: Sequence[str]) -> GenevalSpec:
    """Read a GenEval spec, and check its words."""
    try:
        spec = parse(GenevalSpec, metadata)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"metadata is not a GenEval spec: {error}", field="metadata") from None
    for clause in [*spec.include, *spec.exclude]:
        _check_known("class", clause.class_, classes)
        if clause.color is not None:
            _check_known("color", clause.color, colors)
        if clause.position is not None:
            _check_known("position", clause.position[0], RELATIONS)
    return spec


def _build_shapes(options: ModelOptions) -> tuple[Detector, ColorClassifier]:
    from drpo_rewards.rewards.geneval.shapes_detector import ShapesColorClassifier, ShapesDetector

    if options.model is not None or options.clip is not None:
        raise ConfigError("geneval: the shapes detector has no model; leave `model` and `clip` out")
    return ShapesDetector(), ShapesColorClassifier()


def _build_mask2former(options: ModelOptions) -> tuple[Detector, ColorClassifier]:
    from drpo_rewards.rewards.geneval.mask2former import CLIP, DETECTOR, ClipColorClassifier, Mask2FormerDetector

    sources = {"model": options.model, "clip": options.clip}
    device, dtype, headers_only = options.device, options.dtype, options.headers_only
    return (
        Mask2FormerDetector(DETECTOR.source(sources), device, dtype, headers_only=headers_only),
        ClipColorClassifier(CLIP.source(sources), device, dtype, headers_only=headers_only),
    )


# Each builds a detector and the colour classifier that goes with it. Their modules are imported when they are used.
DETECTORS: dict[str, Callable[[ModelOptions], tuple[Detector, ColorClassifier]]] = {
    "shapes": _build_shapes,
    "mask2former": _build_mask2former,
}


def _detector_name(detector: str | None, model: str | None) -> str:
    return detector or ("shapes" if model is None else "mask2former")


def _check_known(kind: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidRequestError(
            f"metadata asks for {kind} {value!r}; the detector knows {', '.join(known)}", field="metadata"
        )
