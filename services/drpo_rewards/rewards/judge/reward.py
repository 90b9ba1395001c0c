"""The judge: a vision-language model that compares two images, with the paper's question (Appendix B.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from drpo_rewards.errors import ConfigError
from drpo_rewards.rewards.base import READS_NONE, Comparison, PairItem
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.judge.question import Backend, Opinion


class Judge:
    """Which of two images is the cleaner, more coherent realisation of the prompt, by a vision-language model.

    Both orders are asked, because such models favour one position. If the two answers differ, the pair is a tie, and
    `flipped` is True. An answer that cannot be read is a tie, and `unparsed` counts it.

    Args:
        backend: "transformers" loads a Qwen3-VL in this process; "endpoint" asks any OpenAI-compatible server.
        options: the backend's options, see `Qwen3VLBackend` and `EndpointBackend`.
        headers_only: see `files/weights.py`.
    """

    metadata_schema: ClassVar = READS_NONE

    def __init__(
        self,
        backend: Literal["transformers", "endpoint"] = "transformers",
        *,
        headers_only: bool = False,
        **options: Any,
    ) -> None:
        self._backend = _create_backend(backend, headers_only, options)
        self.version = f"judge-1/{self._backend.version}"
        self.checkpoint = self._backend.checkpoint
        self.license = self._backend.license

    @staticmethod
    def files(backend: str = "transformers", **options: Any) -> tuple[ModelFiles, ...]:
        if backend == "endpoint":  # it reads no files
            return ()
        from drpo_rewards.rewards.shared.qwen3_vl import MODEL

        return (MODEL,)

    def compare(self, items: Sequence[PairItem]) -> list[Comparison]:
        opinions = self._backend.ask([*items, *(item.swap() for item in items)])
        in_order, swapped = opinions[: len(items)], opinions[len(items) :]
        return [combine_orders(*pair) for pair in zip(in_order, swapped, strict=True)]


def _create_backend(name: str, headers_only: bool, options: dict[str, Any]) -> Backend:
    if name == "transformers":
        from drpo_rewards.rewards.judge.qwen3_vl import Qwen3VLBackend

        return Qwen3VLBackend(**options, headers_only=headers_only)
    if name == "endpoint":
        from drpo_rewards.rewards.judge.endpoint import EndpointBackend

        return EndpointBackend(**options)
    raise ConfigError(f"the judge has no backend {name!r}; write transformers or endpoint")


def combine_orders(opinion: Opinion, swapped: Opinion) -> Comparison:
    """Make the comparison of a pair from the opinions about the pair and about the swapped pair."""
    swapped_winner = Comparison(swapped.winner).swap().winner  # in terms of the pair that is not swapped
    agreed = opinion.winner == swapped_winner
    both = (opinion, swapped)
    confidences = [each.confidence for each in both if each.confidence is not None]
    return Comparison(
        winner=opinion.winner if agreed else "tie",
        confidence=sum(confidences) / len(confidences) if agreed and confidences else None,
        details={
            "asked": [_opinion_details(opinion.winner, opinion), _opinion_details(swapped_winner, swapped)],
            "reasons": [each.reason for each in both if each.reason],
        },
        flipped=not agreed if opinion.parsed and swapped.parsed else None,
        unparsed=sum(not each.parsed for each in both),
        asked=2,
    )


def _opinion_details(winner: str, opinion: Opinion) -> dict[str, Any]:
    return {"winner": winner, "confidence": opinion.confidence, "parsed": opinion.parsed}
