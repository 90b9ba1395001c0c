"""The options and the response of `rerank`, which every transport carries."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from drpo_rewards.api.contract import DEFAULT_MIXTURE, Answer, Metadata, Name, Options, PromptText, Whole


class RerankOptions(Options):
    """A request to sort images for a query, in the shape that rerank services share.

    Example:
        RerankOptions(query="a red circle", model="pickscore", top_n=3)
    """

    image_list: ClassVar[str] = "documents"
    min_images: ClassVar[int] = 1

    model: Name = Field(default=DEFAULT_MIXTURE, description="A reward, or a configured mixture.")
    query: PromptText
    top_n: Whole | None = Field(default=None, ge=1, description="Return only this many images, the best ones.")
    metadata: Metadata | None = None


class RerankResult(Answer):
    """One image of the response."""

    index: int = Field(description="Position in the request's documents.")
    relevance_score: float
    document: Any | None = Field(default=None, description="The document, if requested; a text as {'text': ...}.")


class RerankUsage(Answer):
    """What the call used. Rerank clients expect these members. There are images, and no tokens."""

    images: int
    prompt_tokens: int = 0
    total_tokens: int = 0


class ApiVersion(Answer):
    """The version of Cohere's API that the response has the shape of."""

    version: Literal["2"] = "2"


class BilledUnits(Answer):
    """One search, which costs nothing."""

    search_units: Literal[1] = 1


class RerankMeta(Answer):
    """What clients of Cohere expect of every response."""

    api_version: ApiVersion = ApiVersion()
    billed_units: BilledUnits = BilledUnits()


class RerankResponse(Answer):
    """The results, best first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage
    meta: RerankMeta = RerankMeta()
