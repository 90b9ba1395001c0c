"""The tokenizer files of the Qwen-VL models. Every byte is a token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from support.tiny.clip import byte_letters

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
TOKEN = {name: 256 + index for index, name in enumerate(SPECIAL)}


def write_qwen_tokenizer(folder: Path, words: Sequence[str] = ()) -> None:
    """Writes the tokenizer to `folder`. Each of `words` becomes one token, with an id after the special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({letter: index for index, letter in enumerate(byte_letters())}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {
        str(index): {"content": name, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
        | {"special": True}
        for name, index in TOKEN.items()
    } | {
        str(256 + len(SPECIAL) + index): {"content": word, "normalized": False, "special": False}
        for index, word in enumerate(words)
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "add_prefix_space": False,
                "added_tokens_decoder": added,
                "additional_special_tokens": SPECIAL[1:],
                "bos_token": None,
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "model_max_length": 32768,
                "tokenizer_class": "Qwen2Tokenizer",
                "unk_token": None,
            }
        )
    )
