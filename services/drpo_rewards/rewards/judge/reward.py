"""The judge: a vision-language model that compares two images, with the paper's question (Appendix B.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from drpo_rewards.errors import ConfigError
from drpo_rewards.rewards.base import Comparison, PairItem
from drpo_rewards.rewards.files.model_files import ModelFiles
from drpo_rewards.rewards.judge.question import Backend, Opinion


class Judge:
    """Which of two images is the cleaner, more coherent realisation of the prompt, by a vision-language model.

    Both orders are asked, because such models favour one position. If the two answers differ, the pair is a tie and
    `flipped`. An answer that cannot be read counts as a tie, and in `unparsed`.

    Args:
        backend: "transformers" loads a Qwen3-VL in this process; "endpoint" asks any OpenAI-compatible server.
        options: those of the backend, see `Qwen3VLBackend` and `EndpointBackend`.
        headers_only: see `files/weights.py`.
    """

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
        if backend == "endpoint":  # which reads no files
            return ()
        from drpo_rewards.rewards.judge.qwen3_vl import MODEL

        return (MODEL,)

    def compare(self, items: Sequence[PairItem]) -> list[Comparison]:
        opinions = self._backend.ask([*items, *(item.swap() for item in items)])
        as_given, swapped = opinions[: len(items)], opinions[len(items) :]
        return [combine_orders(one, other) for one, other in zip(as_given, swapped, strict=True)]


def _create_backend(name: str, headers_only: bool, options: dict[str, Any]) -> Backend:
    if name == "transformers":
        from drpo_rewards.rewards.judge.qwen3_vl import Qwen3VLBackend

        return Qwen3VLBackend(**options, headers_only=headers_only)
    if name == "endpoint":
        from drpo_rewards.rewards.judge.endpoint import EndpointBackend

        return EndpointBackend(**options)
    raise ConfigError(f"the judge has no backend {name!r}; write transformers or endpoint")


def combine_orders(one: Opinion, swapped: Opinion) -> Comparison:
    """The comparison that follows from the answers to both orders; `swapped` is the answer about the swapped pair."""
    other = Comparison(swapped.winner).swap().winner  # in terms of the pair as it was given
    both_parsed = one.parsed and swapped.parsed
    agreed = one.winner == other
    confidences = [opinion.confidence for opinion in (one, swapped) if opinion.confidence is not None]
    return Comparison(
        winner=one.winner if agreed else "tie",
        confidence=sum(confidences) / len(confidences) if agreed and confidences else None,
        details={
            "asked": [_opinion_details(one.winner, one), _opinion_details(other, swapped)],
            "reasons": [opinion.reason for opinion in (one, swapped) if opinion.reason],
        },
        flipped=not agreed if both_parsed else None,
        unparsed=(not one.parsed) + (not swapped.parsed),
        asked=2,
    )


def _opinion_details(winner: str, opinion: Opinion) -> dict[str, Any]:
    return {"winner": winner, "confidence": opinion.confidence, "parsed": opinion.parsed}
