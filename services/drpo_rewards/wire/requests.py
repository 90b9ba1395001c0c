"""The four requests: options and a flat list of images to a message, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from drpo_rewards.api.contract import Options, PairOptions, RankOptions, parse
from drpo_rewards.errors import InvalidImageError
from drpo_rewards.operations import CompareOptions, RerankOptions, ScoreOptions
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.values import NORMALIZE, NORMALIZE_BACK, struct_to_dict

Request = pb.RankRequest | pb.ScoreRequest | pb.CompareRequest | pb.RerankRequest

_STRATEGY = {"random": pb.PairOptions.STRATEGY_RANDOM, "extremes": pb.PairOptions.STRATEGY_EXTREMES}
_STRATEGY_BACK = {number: name for name, number in _STRATEGY.items()} | {pb.PairOptions.STRATEGY_UNSPECIFIED: "random"}


def request_to_proto(options: Options, images: Sequence[np.ndarray | bytes]) -> Request:
    """Arrays travel as RGB8, lossless; a file's bytes as they are."""
    options.check_count(len(images))
    sent = (_image(image) for image in images)
    if isinstance(options, RankOptions):
        return _rank(options, sent)
    if isinstance(options, ScoreOptions):
        return _score(options, sent)
    if isinstance(options, CompareOptions):
        request = pb.CompareRequest(prompt=options.prompt, images=sent, model=options.model, details=options.details)
    elif isinstance(options, RerankOptions):
        request = pb.RerankRequest(model=options.model, query=options.query, documents=sent, top_n=options.top_n)
    else:
        raise TypeError(f"no message for {type(options).__name__}")
    request.request_id = options.request_id or ""
    _set_metadata(request, options.metadata)
    return request


def options_from_proto(request: Request) -> Options:
    """Everything but the images; raises InvalidRequestError as the HTTP body would."""
    fields: dict[str, Any] = {"request_id": request.request_id or None}
    if isinstance(request, pb.ScoreRequest):
        groups = [
            {"prompt": group.prompt, "num_images": len(group.images), "metadata": _metadata(group)}
            for group in request.groups
        ]
        fields |= {"groups": groups, "rewards": list(request.rewards) or None, "details": request.details}
        fields["all_pairs"] = request.all_pairs
        return parse(ScoreOptions, fields)
    fields["metadata"] = _metadata(request)
    if isinstance(request, pb.RerankRequest):
        fields |= {"query": request.query, "top_n": request.top_n if request.HasField("top_n") else None}
        return parse(RerankOptions, fields | ({"model": request.model} if request.model else {}))
    fields |= {"prompt": request.prompt, "details": request.details}
    if isinstance(request, pb.CompareRequest):
        return parse(CompareOptions, fields | ({"model": request.model} if request.model else {}))
    fields |= {
        "rewards": dict(request.rewards) or None,
        "mixture": request.mixture or None,
        "all_pairs": request.all_pairs,
        "normalize": NORMALIZE_BACK.get(request.normalize, f"number {request.normalize}"),
    }
    if request.HasField("pairs"):
        strategy = _STRATEGY_BACK.get(request.pairs.strategy, f"number {request.pairs.strategy}")
        fields["pairs"] = {"count": request.pairs.count, "strategy": strategy, "seed": request.pairs.seed}
    return parse(RankOptions, fields)


def images_of(request: Request) -> list[pb.Image]:
    """The flat list of a request's images."""
    if isinstance(request, pb.ScoreRequest):
        return [image for group in request.groups for image in group.images]
    return list(request.documents if isinstance(request, pb.RerankRequest) else request.images)


def image_from_proto(image: pb.Image, field: str) -> bytes | tuple[bytes, int, int]:
    """A file's bytes, or RGB8 data with its width and height."""
    kind = image.WhichOneof("content")
    if kind == "encoded":
        return image.encoded
    if kind == "rgb8":
        return image.rgb8.data, image.rgb8.width, image.rgb8.height
    raise InvalidImageError(f"{field} has no content", field=field)


def _image(image: np.ndarray | bytes) -> pb.Image:
    if isinstance(image, bytes):
        return pb.Image(encoded=image)
    height, width, _ = image.shape
    return pb.Image(rgb8=pb.Rgb8(width=width, height=height, data=image.tobytes()))


def _rank(options: RankOptions, images: Iterator[pb.Image]) -> pb.RankRequest:
    request = pb.RankRequest(
        prompt=options.prompt,
        images=images,
        rewards=options.rewards or {},
        mixture=options.mixture or "",
        normalize=NORMALIZE[options.normalize],
        pairs=_pairs(options.pairs) if options.pairs else None,
        details=options.details,
        all_pairs=options.all_pairs,
        request_id=options.request_id or "",
    )
    _set_metadata(request, options.metadata)
    return request


def _pairs(pairs: PairOptions) -> pb.PairOptions:
    return pb.PairOptions(count=pairs.count, strategy=_STRATEGY[pairs.strategy], seed=pairs.seed)


def _score(options: ScoreOptions, images: Iterator[pb.Image]) -> pb.ScoreRequest:
    request = pb.ScoreRequest(
        rewards=options.rewards or [],
        details=options.details,
        all_pairs=options.all_pairs,
        request_id=options.request_id or "",
    )
    for group in options.groups:
        entry = request.groups.add(prompt=group.prompt, images=[next(images) for _ in range(group.num_images)])
        _set_metadata(entry, group.metadata)
    return request


def _set_metadata(message: Any, metadata: dict[str, Any] | None) -> None:
    if metadata is not None:
        message.metadata.SetInParent()  # an empty one is there, too
        message.metadata.update(metadata)


def _metadata(message: pb.RankRequest | pb.ScoreGroup | pb.CompareRequest | pb.RerankRequest) -> dict[str, Any] | None:
    return struct_to_dict(message.metadata) if message.HasField("metadata") else None
