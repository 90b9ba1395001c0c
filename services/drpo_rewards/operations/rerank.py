"""Sort images for a query, in the shape of Cohere, Jina and vLLM, so that their clients work unchanged.

A document is an image: `{"image": "data:..."}` (or plain base64), `{"content": [{"type": "image_url", "image_url":
{"url": "data:..."}}]}`, or a bare `data:` URI. Text documents are refused, and no URL is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, WithJsonSchema

from drpo_rewards.api.contract import MAX_IMAGES, Metadata, Model, Name, Options, PromptText, parse
from drpo_rewards.api.question import Question
from drpo_rewards.errors import InvalidImageError
from drpo_rewards.operations.base import (
    Answers,
    Body,
    Operation,
    ServedRewards,
    combine_answers,
    one_group,
)
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.images import images_to_proto
from drpo_rewards.wire.values import metadata_from_proto, set_metadata

if TYPE_CHECKING:
    from drpo_rewards.v1.ranking_pb2_grpc import RankingStub


class RerankOptions(Options):
    """A request to sort images for a query, in the shape that rerank services share.

    Example:
        RerankOptions(query="a red circle", model="pickscore", top_n=3)
    """

    image_list: ClassVar[str] = "documents"
    min_images: ClassVar[int] = 1

    model: Name = Field(default="default", description="A reward, or a configured mixture.")
    query: PromptText
    top_n: int | None = Field(default=None, ge=1, description="Return only this many images, the best ones.")
    metadata: Metadata | None = None

    def document(self, index: int) -> Any | None:
        """Return document `index` as it was sent if the response repeats documents, otherwise None."""
        return None


class RerankResult(Model):
    """One image of the response."""

    index: int = Field(description="Position in the request's documents.")
    relevance_score: float
    document: Any | None = Field(default=None, description="The document as it was sent, if requested.")


class RerankUsage(Model):
    """What the call used. Rerank clients expect this field. It counts images, because there are no tokens."""

    images: int
    total_tokens: int = 0


class RerankResponse(Model):
    """The results, best first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage


_URI = {"type": "string", "format": "uri", "description": "A data: URI, or base64, of a PNG, JPEG or WebP file."}
_PART = {
    "type": "object",
    "required": ["type", "image_url"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {
            "type": "object",
            "required": ["url"],
            "additionalProperties": False,
            "properties": {"url": _URI, "detail": {"type": "string", "description": "Ignored."}},
        },
    },
}


def _object_schema(key: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [key], "additionalProperties": False, "properties": {key: schema}}


_DOCUMENT = {
    "anyOf": [
        _object_schema("image", _URI),
        _object_schema("content", {"type": "array", "items": _PART, "minItems": 1, "maxItems": 1}),
        _URI,
    ]
}
Document = Annotated[Any, WithJsonSchema(_DOCUMENT)]
Ignored = Annotated[Any, Field(default=None, description="Accepted and ignored: it concerns text only.")]


class RerankRequest(RerankOptions, Body):
    """The JSON body of `POST /v1/rerank`."""

    documents: list[Document] = Field(min_length=1, max_length=MAX_IMAGES)
    return_documents: bool = False
    max_tokens_per_doc: Ignored
    max_chunks_per_doc: Ignored
    truncation: Ignored
    truncate_prompt_tokens: Ignored
    priority: Ignored
    user: Ignored

    def split(self) -> tuple[RerankOptions, list[str]]:
        return self, [_find_image(document, self.image_field(index)) for index, document in enumerate(self.documents)]

    def document(self, index: int) -> Any | None:
        return self.documents[index] if self.return_documents else None


class Rerank(Operation[RerankOptions, RerankResponse]):
    """Sort images for a query, best first."""

    name = "rerank"
    summary = "Images sorted for a query, in the shape of Cohere, Jina and vLLM."
    options = RerankOptions
    body = RerankRequest
    response = RerankResponse
    other_paths = ("/rerank", "/v2/rerank")
    rpc_name = "Rerank"
    response_message: ClassVar[Any] = pb.RerankResponse

    def question(self, options: RerankOptions, num_images: int, served: ServedRewards) -> Question:
        return Question(list(served.find_model(options.model).rewards), one_group(options.query, num_images, options))

    def answer(
        self, options: RerankOptions, question: Question, answers: Answers, served: ServedRewards
    ) -> RerankResponse:
        ranking = combine_answers(answers, served.find_model(options.model))
        results = [
            RerankResult(index=index, relevance_score=ranking.combined[index], document=options.document(index))
            for index in ranking.order[: options.top_n]
        ]
        usage = RerankUsage(images=len(ranking.order))
        return RerankResponse(id=options.request_id or "", model=options.model, results=results, usage=usage)

    def stub_method(self, stub: RankingStub) -> Any:
        return stub.Rerank

    def request_to_proto(self, options: RerankOptions, images: Sequence[np.ndarray | bytes]) -> pb.RerankRequest:
        request = pb.RerankRequest(
            model=options.model,
            query=options.query,
            documents=images_to_proto(options, images),
            top_n=options.top_n,
            request_id=options.request_id or "",
        )
        set_metadata(request, options.metadata)
        return request

    def options_from_proto(self, request: pb.RerankRequest) -> RerankOptions:
        fields = {
            "request_id": request.request_id or None,
            "query": request.query,
            "metadata": metadata_from_proto(request),
            "top_n": request.top_n if request.HasField("top_n") else None,
        }
        return parse(RerankOptions, fields | ({"model": request.model} if request.model else {}))

    def images_of(self, request: pb.RerankRequest) -> list[pb.Image]:
        return list(request.documents)

    def response_to_proto(self, response: RerankResponse) -> pb.RerankResponse:
        results = [pb.RerankResult(**result.model_dump(exclude={"document"})) for result in response.results]
        usage = response.usage
        return pb.RerankResponse(id=response.id, model=response.model, results=results, images=usage.images)

    def response_from_proto(self, message: pb.RerankResponse) -> RerankResponse:
        results = [RerankResult(index=entry.index, relevance_score=entry.relevance_score) for entry in message.results]
        usage = RerankUsage(images=message.images)
        return RerankResponse(id=message.id, model=message.model, results=results, usage=usage)


def _find_image(document: Any, field: str) -> str:
    """Return the base64 text or URI in one document. Raises InvalidImageError if it has none."""
    if isinstance(document, str) and document[:5].lower() == "data:":
        return document
    if isinstance(document, dict):
        if set(document) == {"image"} and isinstance(document["image"], str):
            return document["image"]
        content = document.get("content")
        if set(document) == {"content"} and isinstance(content, list) and len(content) == 1:
            part = content[0] if isinstance(content[0], dict) else {}
            target = part.get("image_url")
            if part.get("type") == "image_url" and isinstance(target, dict) and isinstance(target.get("url"), str):
                return target["url"]
    raise InvalidImageError(
        f'{field} is not an image document; write {{"image": "data:image/png;base64,..."}} or {{"content": [{{"type": '
        f'"image_url", "image_url": {{"url": "data:..."}}}}]}} with one image (this service ranks images, not text)',
        field=field,
    )
