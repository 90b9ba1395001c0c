"""Sort images for a query, in the shape of rerank services, so that their clients work unchanged.

`rerank_dialects` has the forms in which those clients write requests and read answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel

from drpo_rewards.api.contract import parse
from drpo_rewards.api.question import Question
from drpo_rewards.operations.base import Answers, Operation, ServedRewards, combine_answers, one_group
from drpo_rewards.operations.rerank_contract import RerankOptions, RerankResponse, RerankResult, RerankUsage
from drpo_rewards.operations.rerank_dialects import (
    AnyAnswer,
    InfinityRequest,
    PairsRequest,
    RerankRequest,
    SentOptions,
)
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.images import images_to_proto
from drpo_rewards.wire.values import metadata_from_proto, set_metadata

if TYPE_CHECKING:
    from drpo_rewards.v1.ranking_pb2_grpc import RankingStub


class Rerank(Operation[RerankOptions, RerankResponse]):
    """Sort images for a query, best first."""

    name = "rerank"
    summary = "Images sorted for a query, in the shapes of Cohere, Jina, vLLM and others."
    options = RerankOptions
    body = RerankRequest
    response = RerankResponse
    http_response = AnyAnswer
    other_paths: ClassVar = {
        "/rerank": RerankRequest,
        "/v2/rerank": RerankRequest,
        "/infinity/rerank": InfinityRequest,
        "/score": PairsRequest,
    }
    rpc_name = "Rerank"
    response_message: ClassVar[Any] = pb.RerankResponse

    def question(self, options: RerankOptions, num_images: int, served: ServedRewards) -> Question:
        group = one_group(options.query, num_images, options, "query")
        return Question(list(served.find_model(options.model).rewards), group)

    def answer(
        self, options: RerankOptions, question: Question, answers: Answers, served: ServedRewards
    ) -> RerankResponse:
        ranking = combine_answers(answers, served.find_model(options.model))
        results = [
            RerankResult(index=index, relevance_score=ranking.combined[index])
            for index in ranking.order[: options.top_n]
        ]
        usage = RerankUsage(images=len(ranking.order))
        return RerankResponse(id=options.request_id or "", model=options.model, results=results, usage=usage)

    def http_answer(self, options: RerankOptions, response: RerankResponse) -> BaseModel:
        return options.shape(response) if isinstance(options, SentOptions) else response

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
