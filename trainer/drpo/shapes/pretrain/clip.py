"""The recipe of the CLIP for the world of shapes, a small differentiable reward.

The tokenizer is that of `shapes`. The text tower begins as its text encoder, which already knows a caption's facts.

A batch has captions, and for some of them two pictures: one that the caption describes, and one that differs in one
fact (the mistakes of `coupling`). Half of the pictures go through the autoencoder, because the reward will score
decoded latents, not drawings. Three losses are added: caption to picture and picture to caption, both contrastive, and
a label for each patch, which is only there to make the picture tower learn quickly.

Axes: N pictures, P captions, T patches, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from drpo.shapes.assets import generator_path
from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.coupling import NUM_MODES, background, coupled_scene
from drpo.shapes.pretrain.data import draw_prompts, to_tensor, train_prompts
from drpo.shapes.pretrain.export import halve
from drpo.shapes.pretrain.stage import StepRandom, fit
from drpo.shapes.pretrain.text import tokenize
from drpo.shapes.world import SIZE, Shape, draw_scene
from drpo_rewards.api.shapes import PALETTE, SHAPES

_PATCH, _WIDTH, _LAYERS, _PROJECTION = 8, 128, 4, 64
_DRAWN, _OTHERS = 24, 24  # captions of a batch with pictures, and without
_JITTER = 10  # largest change of an object's colour, per channel, in 0..255
_LATENT_NOISE = 0.1  # in standard deviations of the latents
_SURELY = 9.0  # a value of the mode of mistakes that makes every caption right (negative) or wrong (positive)


@dataclass(frozen=True)
class ClipRecipe:
    """The seed and the steps of the stage. The defaults are those of the shipped model."""

    seed: int = 0
    steps: int = 1600

    @classmethod
    def tiny(cls) -> ClipRecipe:
        """A recipe with a few steps, whose model knows nothing."""
        return cls(steps=2)


def pretrain_clip(recipe: ClipRecipe, out: Path, num_processes: int = 1, device: str = "cpu") -> None:
    """Trains and writes `out/clip`, in the layout of transformers' CLIPModel. Call it again after an interruption.

    Args:
        recipe: what to train.
        out: the folder to write; `out/work` keeps the state.
        num_processes: processes that train together on a CPU, each on its share of a batch.
        device: where the CLIP is trained.
    """
    (out / "work").mkdir(parents=True, exist_ok=True)
    trainers = 1 if device.startswith("cuda") else num_processes
    processes.run_in_processes(trainers, _train, recipe, out, device)


def _train(recipe: ClipRecipe, out: Path, device: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    base: Any = StableDiffusionPipeline.from_pretrained(generator_path(), dtype=torch.float32)
    tokenizer: CLIPTokenizer = base.tokenizer
    vae = base.vae.to(device).requires_grad_(False)
    student = _Student(new_clip(base.text_encoder)).to(device)
    ids_PT = tokenize(tokenizer, [record.prompt for record in train_prompts()])

    def compute_loss(random: StepRandom) -> Tensor:
        batch = draw_batch(_DRAWN // processes.count(), _OTHERS // processes.count(), random.numpy)
        pictures_N3HW = _through_autoencoder(vae, batch.pictures_N3HW.to(device), random)
        return student(pictures_N3HW, ids_PT[batch.prompts_P].to(device), batch)

    fit("clip", student, compute_loss, out / "work", steps=recipe.steps, learning_rate=2e-3, seed=recipe.seed,
        ema_decay=0.99)  # fmt: skip
    if processes.rank() == 0:
        halve(student.clip)
        student.clip.cpu().save_pretrained(out / "clip")
        tokenizer.save_pretrained(out / "clip")
        tokenizer.backend_tokenizer.model.save(str(out / "clip"))  # also vocab.json and merges.txt


def new_clip(text: CLIPTextModel) -> CLIPModel:
    """A CLIP whose text tower is a copy of a trained text encoder, and whose picture tower is new."""
    vision = {
        "image_size": SIZE,
        "patch_size": _PATCH,
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 4,
        "projection_dim": _PROJECTION,
    }
    text_config = {**text.config.to_dict(), "projection_dim": _PROJECTION}
    text_config.pop("_name_or_path", None)  # a folder of this machine
    clip = CLIPModel(CLIPConfig(text_config=text_config, vision_config=vision, projection_dim=_PROJECTION))
    clip.text_model.load_state_dict(text.state_dict())
    return clip


class Batch:
    """Captions, pictures, and which caption describes which picture.

    Attributes:
        prompts_P: indices into `train_prompts()`.
        pictures_N3HW: in [-1, 1].
        true_NP: whether a picture shows what a caption says, and nothing else.
        patches_NT2: shape and colour in the middle of each patch, 0 for the background.
    """

    def __init__(self, prompts_P: NDArray[np.int64], scenes: Sequence[list[Shape]], pictures_N3HW: Tensor) -> None:
        self.prompts_P = torch.from_numpy(prompts_P)
        self.pictures_N3HW = pictures_N3HW
        records = [train_prompts()[i] for i in prompts_P]
        self.true_NP = torch.tensor([[describes(record.metadata, scene) for record in records] for scene in scenes])
        self.patches_NT2 = torch.from_numpy(np.stack([_label_patches(scene) for scene in scenes]))


def draw_batch(drawn: int, others: int, rng: np.random.Generator) -> Batch:
    """Draws captions, and a right and a wrong picture for the first `drawn` of them."""
    prompts_P = draw_prompts(drawn + others, rng)
    scenes, pictures = [], []
    for wrong in (False, True):
        for index in prompts_P[:drawn]:
            modes_M = rng.standard_normal(NUM_MODES)
            modes_M[0] = _SURELY if wrong else -_SURELY
            scene = coupled_scene(train_prompts()[index].metadata, modes_M)
            tint, slope = background(modes_M)
            jitter = {shape: rng.integers(-_JITTER, _JITTER + 1, size=3) for shape in scene}
            scenes.append(scene)
            pictures.append(draw_scene(scene, tint, slope, jitter))
    return Batch(prompts_P, scenes, to_tensor(np.stack(pictures)))


def describes(metadata: dict, scene: Sequence[Shape]) -> bool:
    """Whether a scene shows exactly what a caption's specification names."""
    clauses = metadata["include"]
    if len(scene) != sum(clause["count"] for clause in clauses):
        return False
    found = [[shape for shape in scene if _fits(clause, shape)] for clause in clauses]
    if any(len(shapes) != clause["count"] for shapes, clause in zip(found, clauses, strict=True)):
        return False
    relation = next((clause["position"][0] for clause in clauses if clause.get("position")), None)
    if relation is None:
        return True
    (first, *_), (second, *_) = found
    right, down = second.x - first.x, second.y - first.y
    along = {"left of": -right, "right of": right, "above": -down, "below": down}[relation]
    return along >= max(abs(right), abs(down))


def _fits(clause: dict, shape: Shape) -> bool:
    return shape.name == clause["class"] and clause.get("color") in (None, shape.color)


def _label_patches(scene: Sequence[Shape]) -> NDArray[np.int64]:
    side = SIZE // _PATCH
    middle = (np.arange(side) + 0.5) * _PATCH
    labels_hw2 = np.zeros((side, side, 2), np.int64)
    for shape in scene:
        inside_hw = np.hypot(middle[None, :] - shape.x, middle[:, None] - shape.y) <= shape.diameter / 2
        labels_hw2[inside_hw] = SHAPES.index(shape.name) + 1, list(PALETTE).index(shape.color) + 1
    return labels_hw2.reshape(-1, 2)


@torch.no_grad()
def _through_autoencoder(vae: Any, pictures_N3HW: Tensor, random: StepRandom) -> Tensor:
    """The pictures, every second one encoded and decoded with slightly wrong latents."""
    mean_NChw = vae.encode(pictures_N3HW[::2]).latent_dist.mean
    noise_NChw = torch.randn(mean_NChw.shape, generator=random.torch).to(mean_NChw.device)
    decoded_N3HW = vae.decode(mean_NChw + _LATENT_NOISE / vae.config.scaling_factor * noise_NChw).sample
    mixed_N3HW = pictures_N3HW.clone()
    mixed_N3HW[::2] = decoded_N3HW.clamp(-1, 1)
    return mixed_N3HW


class _Student(nn.Module):
    """The CLIP and its three losses. The head that labels patches is not part of the result."""

    mean_311: Tensor
    std_311: Tensor

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.labels = nn.Linear(_WIDTH, len(SHAPES) + 1 + len(PALETTE) + 1)
        mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
        self.register_buffer("mean_311", mean[:, None, None], persistent=False)
        self.register_buffer("std_311", std[:, None, None], persistent=False)

    def forward(self, pictures_N3HW: Tensor, ids_PT: Tensor, batch: Batch) -> Tensor:
        clip: Any = self.clip
        pixels_N3HW = (pictures_N3HW * 0.5 + 0.5 - self.mean_311) / self.std_311
        seen = clip.vision_model(pixel_values=pixels_N3HW)
        pictures_ND = F.normalize(clip.visual_projection(seen.pooler_output), dim=-1)
        read = clip.text_model(input_ids=ids_PT)
        captions_PD = F.normalize(clip.text_projection(read.pooler_output), dim=-1)
        logits_NP = clip.logit_scale.clamp(max=4.6).exp() * pictures_ND @ captions_PD.T
        true_NP = batch.true_NP.to(logits_NP.device)
        contrast = contrastive_loss(logits_NP, true_NP) + contrastive_loss(logits_NP.T, true_NP.T)
        shapes_NTL, colors_NTL = self.labels(seen.last_hidden_state[:, 1:]).split(
            (len(SHAPES) + 1, len(PALETTE) + 1), dim=-1
        )
        labels_NT2 = batch.patches_NT2.to(logits_NP.device)
        shape_loss = F.cross_entropy(shapes_NTL.flatten(0, 1), labels_NT2[..., 0].flatten())
        return contrast + shape_loss + F.cross_entropy(colors_NTL.flatten(0, 1), labels_NT2[..., 1].flatten())


def contrastive_loss(logits_NP: Tensor, true_NP: Tensor) -> Tensor:
    """Minus the log of the share of probability on true partners, the mean over the rows that have one."""
    rows = true_NP.any(dim=1)
    log_shares_NP = logits_NP[rows].log_softmax(dim=1)
    return -log_shares_NP.masked_fill(~true_NP[rows], float("-inf")).logsumexp(dim=1).mean()
