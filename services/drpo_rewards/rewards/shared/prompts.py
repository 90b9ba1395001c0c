"""A user's prompt is text, whatever stands in it: no special token of a model's may come from there."""

from __future__ import annotations

from typing import Any


def neutralize(prompt: str, tokenizer: Any) -> str:
    """`prompt` with every special or added token of the (transformers) tokenizer broken by a space: "< |image_pad|>".

    Left as it is, a prompt that says `<|endoftext|>` would end CLIP's text early, and one that says `<|image_pad|>`
    would ask a vision-language model for an image that is not there.
    """
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    for token in sorted(special, key=len, reverse=True):
        if len(token) > 1:  # a single character, such as the padding "!" of some CLIPs, is a word like any other
            prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
    return prompt
