"""The forms in which clients of other rerank services write requests, and the shapes of answers that they read.

| client | how it is known | what differs in its answer |
|---|---|---|
| Cohere, Jina, vLLM, and what copies them | any other request | |
| text-embeddings-inference | `texts` instead of `documents` | a bare list of `index` and `score` |
| infinity | `raw_scores`, or the path `/infinity/rerank` | documents are strings |
| Voyage | `top_k` instead of `top_n` | also has the results as `data` |
| vLLM's scores | the path `/score` | scores in the order of the documents, as `data` |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field, PrivateAttr, RootModel, WithJsonSchema

from drpo_rewards.api.contract import DEFAULT_MIXTURE, MAX_NAME, Answer, Metadata, RequestId, parse
from drpo_rewards.errors import InvalidRequestError
from drpo_rewards.operations.base import Body
from drpo_rewards.operations.rerank_contract import RerankOptions, RerankResponse
from drpo_rewards.operations.rerank_documents import (
    DOCUMENTS_SCHEMA,
    QUERY_SCHEMA,
    find_image,
    read_documents,
    read_text,
)

# What infinity's client sends if its user names no model.
NO_MODEL = ("", "default/not-specified")

# -- answers ------------------------------------------------------------------------------------------------------


class TeiResult(Answer):
    """One result for a client of text-embeddings-inference."""

    index: int
    score: float
    text: str | None = None


class TeiAnswer(RootModel[list[TeiResult]]):
    """The results, best first."""


class InfinityAnswer(RerankResponse):
    """The results for a client of infinity, with strings as documents."""

    object: Literal["rerank"] = "rerank"
    created: int


class VoyageResult(Answer):
    """One result for a client of Voyage."""

    index: int
    relevance_score: float
    document: str | None = None


class VoyageAnswer(RerankResponse):
    """The results for a client of Voyage, which reads `data`."""

    object: Literal["list"] = "list"
    data: list[VoyageResult]


class PairScore(Answer):
    """One document's score."""

    index: int
    object: Literal["score"] = "score"
    score: float


class PairsAnswer(Answer):
    """Scores in the order of the documents, as vLLM's `/score` has them."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[PairScore]
    usage: dict[str, int]


AnyAnswer = RerankResponse | InfinityAnswer | VoyageAnswer | TeiAnswer

Documents = list[Any]  # as they were sent
Shape = Callable[[RerankResponse, Documents | None], BaseModel]  # None if the answer repeats no documents


def shape_common(response: RerankResponse, documents: Documents | None) -> BaseModel:
    """Repeat a text as `{"text": ...}`, and any other document as it was sent."""
    return _with_documents(response, documents, lambda sent: {"text": sent} if isinstance(sent, str) else sent)


def shape_tei(response: RerankResponse, documents: Documents | None) -> BaseModel:
    """Answer a client of text-embeddings-inference."""
    texts = _texts(documents)
    return TeiAnswer(
        [
            TeiResult(index=one.index, score=one.relevance_score, text=texts[one.index] if texts else None)
            for one in response.results
        ]
    )


def shape_infinity(response: RerankResponse, documents: Documents | None) -> BaseModel:
    """Answer a client of infinity."""
    answer = _with_documents(response, _texts(documents), lambda text: text)
    return InfinityAnswer(**answer.model_dump(), created=int(time.time()))


def shape_voyage(response: RerankResponse, documents: Documents | None) -> BaseModel:
    """Answer a client of Voyage."""
    texts = _texts(documents)
    data = [
        VoyageResult(index=one.index, relevance_score=one.relevance_score, document=texts[one.index] if texts else None)
        for one in response.results
    ]
    return VoyageAnswer(**_with_documents(response, texts, lambda text: {"text": text}).model_dump(), data=data)


def shape_pairs(response: RerankResponse, documents: Documents | None) -> BaseModel:
    """Answer a client of vLLM's `/score`."""
    scores = {one.index: one.relevance_score for one in response.results}
    return PairsAnswer(
        id=response.id,
        created=int(time.time()),
        model=response.model,
        data=[PairScore(index=index, score=scores[index]) for index in sorted(scores)],
        usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    )


def _with_documents(
    response: RerankResponse, documents: Documents | None, repeat: Callable[[Any], Any]
) -> RerankResponse:
    if documents is None:
        return response
    results = [one.model_copy(update={"document": repeat(documents[one.index])}) for one in response.results]
    return response.model_copy(update={"results": results})


def _texts(documents: Documents | None) -> list[str] | None:
    """Return each document as a string: a text as it was sent, otherwise its image."""
    if documents is None:
        return None
    return [_text_of(document) for document in documents]


def _text_of(document: Any) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    return text if isinstance(text, str) else find_image(document, "")


# -- requests -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """What the answer to a JSON body needs to know of it.

    Attributes:
        documents: as they were sent.
        shape: makes the answer.
        name: the key of the documents, for errors.
        repeat: whether the answer repeats the documents.
    """

    documents: Documents
    shape: Shape = shape_common
    name: str = "documents"
    repeat: bool = False


class SentOptions(RerankOptions):
    """Options that came as a JSON body."""

    _sent: Sent = PrivateAttr(default_factory=lambda: Sent([]))

    def image_field(self, index: int) -> str:
        return f"{self._sent.name}[{index}]"

    def shape(self, response: RerankResponse) -> BaseModel:
        """Return the response in the shape that the client reads."""
        return self._sent.shape(response, self._sent.documents if self._sent.repeat else None)


Query = Annotated[Any, WithJsonSchema(QUERY_SCHEMA)]
SentDocuments = Annotated[Any, WithJsonSchema(DOCUMENTS_SCHEMA)]
Count = Annotated[int, Field(ge=0)]


def ignored(why: str = "it concerns text only") -> Any:
    """Describe a key that is accepted and ignored."""
    return Field(default=None, description=f"Accepted and ignored: {why}.")


class CommonRequest(Body):
    """The keys of all forms."""

    may_repeat_images = True
    request_id: RequestId | None = None
    model: Annotated[str, Field(max_length=MAX_NAME)] | None = Field(
        default=None, description="A reward, or a configured mixture."
    )
    metadata: Metadata | None = None
    activation: Any = ignored("a score is the reward's own number")
    use_activation: Any = ignored("a score is the reward's own number")
    softmax: Any = ignored("a score is the reward's own number")
    truncation: Any = ignored()
    truncation_side: Any = ignored()
    truncate_prompt_tokens: Any = ignored()
    max_tokens_per_doc: Any = ignored()
    max_tokens_per_query: Any = ignored()
    mm_processor_kwargs: Any = ignored("each reward prepares the images in its own way")
    priority: Any = ignored("all requests are equal")
    user: Any = ignored("no one is billed")

    def _make_options(self, query: Any, sent: Sent, top_n: int | None = None) -> tuple[SentOptions, list[str]]:
        """Make the options, and find the image in each document."""
        model = DEFAULT_MIXTURE if self.model is None or self.model in NO_MODEL else self.model
        fields = {"request_id": self.request_id, "metadata": self.metadata, "query": read_text(query)}
        options = parse(SentOptions, {"model": model, "top_n": top_n, **fields})
        options._sent = sent
        return options, [find_image(document, options.image_field(i)) for i, document in enumerate(sent.documents)]


class RerankRequest(CommonRequest):
    """The JSON body of `POST /v1/rerank`."""

    query: Query = Field(description="What the images were made from: a text, or parts that are texts.")
    documents: SentDocuments | None = Field(default=None, description="The images; or give `texts`.")
    texts: SentDocuments | None = Field(default=None, description="The images, as text-embeddings-inference has them.")
    top_n: Count | None = Field(default=None, description="Return only this many images, the best ones; 0 for all.")
    top_k: Count | None = Field(default=None, description="The same as `top_n`, from Voyage's clients.")
    return_documents: bool | None = None
    return_text: bool | None = Field(default=None, description="The same as `return_documents`.")
    raw_scores: Any = ignored("a score is the reward's own number")
    rank_fields: Any = ignored("a document has one image")
    truncate: Any = ignored()
    truncation_direction: Any = ignored()
    max_chunks_per_doc: Any = ignored()
    max_doc_length: Any = ignored()
    max_query_length: Any = ignored()
    max_length: Any = ignored()
    overlap_tokens: Any = ignored()

    def split(self) -> tuple[SentOptions, list[str]]:
        name = "documents" if self.texts is None else "texts"
        sent = self.documents if self.texts is None else self.texts
        if sent is None or (self.documents is not None and self.texts is not None):
            raise InvalidRequestError("give the images as `documents`, or else as `texts`", field="documents")
        if self.top_n is not None and self.top_k is not None and self.top_n != self.top_k:
            raise InvalidRequestError("`top_n` and `top_k` mean the same, but differ; give one of them", field="top_k")
        repeat = bool(self.return_documents or self.return_text)
        return self._make_options(
            self.query,
            Sent(read_documents(sent, name), self._choose_shape(), name, repeat),
            self.top_n or self.top_k or None,  # 0 is all of them
        )

    def _choose_shape(self) -> Shape:
        signs: dict[str, Shape] = {"texts": shape_tei, "raw_scores": shape_infinity, "top_k": shape_voyage}
        return next((shape for key, shape in signs.items() if key in self.model_fields_set), shape_common)


class InfinityRequest(RerankRequest):
    """The JSON body of `POST /infinity/rerank`, for clients of infinity that send nothing by which they are known."""

    def _choose_shape(self) -> Shape:
        return shape_infinity


class PairsRequest(CommonRequest):
    """The JSON body of `POST /score`, vLLM's call: one text and several images."""

    query: Query = Field(validation_alias=AliasChoices("text_1", "data_1", "queries"))
    documents: SentDocuments = Field(validation_alias=AliasChoices("text_2", "data_2", "items", "documents"))

    def split(self) -> tuple[SentOptions, list[str]]:
        sent = [self.documents] if isinstance(self.documents, str) else self.documents
        return self._make_options(self.query, Sent(read_documents(sent, "documents"), shape_pairs))
