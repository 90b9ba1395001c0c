"""A judge of two images: a vision-language model, asked with the paper's question (Appendix B.4), in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from drpo_rewards.errors import ConfigError
from drpo_rewards.rewards.base import Comparison, PairItem
from drpo_rewards.rewards.files.parts import Part
from drpo_rewards.rewards.judge.question import Backend, Opinion


class Judge:
    """Which of two images is the cleaner, more coherent realisation of the prompt, by a vision-language model.

    Both orders are asked, for such models favour a place; where the answers differ the pair is a tie, and `flipped`.
    An answer that cannot be read counts as a tie and in `unparsed`.

    backend: "transformers" loads a Qwen3-VL in this process: `model` is a folder or hub id, `device`, `dtype` and
    `max_pixels` as in `qwen3_vl.py`. "endpoint" asks any OpenAI-compatible server: `model` is the name that it has
    there, `base_url` its address up to `/v1`; `timeout_s`, `concurrency` and `retries` as in `endpoint.py`. The options
    of one backend are refused by the other.
    """

    def __init__(self, backend: Literal["transformers", "endpoint"] = "transformers", **options: Any) -> None:
        self._backend = _backend(backend, options)
        self.version = f"judge-1/{self._backend.version}"
        self.checkpoint = self._backend.checkpoint
        self.license = self._backend.license

    @staticmethod
    def parts(backend: str = "transformers", **options: Any) -> tuple[Part, ...]:
        if backend == "endpoint":  # which reads no file
            return ()
        from drpo_rewards.rewards.judge.qwen3_vl import MODEL

        return (MODEL,)

    def compare(self, items: Sequence[PairItem]) -> list[Comparison]:
        shown = self._backend.ask([*items, *(item.swap() for item in items)])
        return [agree(one, other) for one, other in zip(shown[: len(items)], shown[len(items) :], strict=True)]


def _backend(name: str, options: dict[str, Any]) -> Backend:
    if name == "transformers":
        from drpo_rewards.rewards.judge.qwen3_vl import Qwen3VLBackend

        return Qwen3VLBackend(**options)
    if name == "endpoint":
        from drpo_rewards.rewards.judge.endpoint import EndpointBackend

        return EndpointBackend(**options)
    raise ConfigError(f"the judge has no backend {name!r}; write transformers or endpoint")


def agree(one: Opinion, swapped: Opinion) -> Comparison:
    """One judgement of the answers to both orders; `swapped` is about the swapped pair."""
    other = Comparison(swapped.winner).swap().winner  # in the names of the pair as it was given
    both_parsed = one.parsed and swapped.parsed
    agreed = one.winner == other
    known = [opinion.confidence for opinion in (one, swapped) if opinion.confidence is not None]
    return Comparison(
        winner=one.winner if agreed else "tie",
        confidence=sum(known) / len(known) if agreed and known else None,
        details={
            "asked": [_said(one.winner, one), _said(other, swapped)],
            "reasons": [opinion.reason for opinion in (one, swapped) if opinion.reason],
        },
        flipped=not agreed if both_parsed else None,
        unparsed=(not one.parsed) + (not swapped.parsed),
        asked=2,
    )


def _said(winner: str, opinion: Opinion) -> dict[str, Any]:
    return {"winner": winner, "confidence": opinion.confidence, "parsed": opinion.parsed}
