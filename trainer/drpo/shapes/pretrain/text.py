"""Stage 2: the tokenizer and the text encoder.

Like SD-Turbo's text encoder, this one is trained before the generator, and then frozen. It learns to predict the
specification of a caption from the hidden state of the end token.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from drpo.shapes.pretrain.data import draw_prompts, train_prompts
from drpo.shapes.pretrain.stage import StepRandom, fit
from drpo.shapes.prompts import ShapesPrompt
from drpo.shapes.world import MAX_COUNT
from drpo_rewards.api.shapes import PALETTE, RELATIONS, SHAPES

TOKENS = 16
"""Length of a tokenized prompt, including the start and end tokens."""

WIDTH = 128
"""Features of a token."""

_BATCH = 128


def new_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer: each word of the prompts is one token, other text is spelt in letters."""
    words = sorted({word for record in train_prompts() for word in record.prompt.split()})
    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=1,
        end_of_word_suffix="</w>",
        initial_alphabet=letters,
        # The trainer numbers the letters at the end of words in the order in which it finds them, which differs between
        # processes, and breaks ties by these numbers. Listing them here makes the tokenizer the same every time.
        special_tokens=["<|startoftext|>", "<|endoftext|>", *(letter + "</w>" for letter in letters)],
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(words), " ".join(letters)], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges: list = [tuple(merge) for merge in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=TOKENS)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """The token ids (N, TOKENS) of texts."""
    return tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids


@torch.no_grad()
def hidden_states(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> Tensor:
    """The text encoder's hidden states of all train prompts, (P, T, D)."""
    ids_PT = tokenize(tokenizer, [record.prompt for record in train_prompts()])
    return torch.cat([text_encoder(ids).last_hidden_state for ids in ids_PT.split(256)])


class _SpecificationReader(nn.Module):
    """A text encoder with linear heads that predict the specification from one vector of a caption.

    This vector is the hidden state of the end token, or, of an encoder with a projection, its projected vector.
    """

    # for two objects: shape and colour (or none) of each; the count of the first; the relation of the second (or none)
    sizes = (len(SHAPES) + 1, len(PALETTE) + 1, len(SHAPES) + 1, len(PALETTE) + 1, MAX_COUNT + 1, len(RELATIONS) + 1)

    def __init__(self, encoder: CLIPTextModel | CLIPTextModelWithProjection, end_token: int):
        super().__init__()
        self.encoder = encoder
        self.end_token = end_token
        projected = isinstance(encoder, CLIPTextModelWithProjection)
        width: int = (encoder.config.projection_dim if projected else encoder.config.hidden_size) or WIDTH
        self.heads = nn.Linear(width, sum(self.sizes))

    def forward(self, ids_NT: Tensor) -> tuple[Tensor, ...]:
        output = self.encoder(ids_NT)
        if isinstance(self.encoder, CLIPTextModelWithProjection):
            return self.heads(output.text_embeds).split(self.sizes, dim=1)
        end_N = ids_NT.eq(self.end_token).int().argmax(dim=1)
        return self.heads(output.last_hidden_state[torch.arange(len(ids_NT)), end_N]).split(self.sizes, dim=1)


def _target_classes(record: ShapesPrompt) -> list[int]:
    clauses = record.metadata["include"]
    first, second = clauses[0], clauses[1] if len(clauses) > 1 else {}
    relation = second.get("position", [None])[0]
    return [
        _index(SHAPES, first["class"]), _index(tuple(PALETTE), first.get("color")),
        _index(SHAPES, second.get("class")), _index(tuple(PALETTE), second.get("color")),
        first["count"], _index(RELATIONS, relation),
    ]  # fmt: skip


def _index(names: tuple[str, ...], name: str | None) -> int:
    return 0 if name is None else names.index(name) + 1


def train_text_encoder(folder: Path, seed: int, *, steps: int) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Trains the text encoder on the train prompts and freezes it."""
    torch.manual_seed(seed)
    tokenizer = new_tokenizer()
    encoder = new_text_encoder(tokenizer)
    train_reader("text", tokenizer, encoder, folder, seed, steps=steps)
    return tokenizer, encoder


def train_reader(
    name: str,
    tokenizer: CLIPTokenizer,
    encoder: CLIPTextModel | CLIPTextModelWithProjection,
    folder: Path,
    seed: int,
    *,
    steps: int,
) -> None:
    """Trains a text encoder in place to tell the specification of a caption, and freezes it. `name` is the stage's."""
    reader = _SpecificationReader(encoder, tokenizer.eos_token_id)
    ids_PT = tokenize(tokenizer, [record.prompt for record in train_prompts()])
    targets_P6 = torch.tensor([_target_classes(record) for record in train_prompts()])

    def compute_loss(random: StepRandom) -> Tensor:
        chosen = torch.from_numpy(draw_prompts(_BATCH, random.numpy))
        heads = reader(ids_PT[chosen])
        return sum(F.cross_entropy(logits, targets_P6[chosen, i]) for i, logits in enumerate(heads))  # type: ignore[return-value]

    fit(name, reader, compute_loss, folder, steps=steps, learning_rate=1e-3, seed=seed)
    reader.requires_grad_(False)
