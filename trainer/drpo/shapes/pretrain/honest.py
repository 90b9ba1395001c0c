"""The recipe of `shapes-honest`: a one-step generator whose errors are its own.

The generator of `shapes` learns a fixed coupling of noise and scene, so its errors follow from a rule. Here nothing
couples them. A rectified flow (x_t = (1 - t) x + t z, target z - x) learns pictures with careless captions, of which
every fact is wrong with the same probability as in `shapes`. Then one step of the same U-Net learns the pairs (noise,
sample) that the flow's Euler steps give: the way in which public one-step models are distilled.

The flow begins with the U-Net of `shapes`, which saves steps: at t = 1 both take the same input. Nothing of the
coupling is left after it (`drpo/shapes/README.md` has the figures). The autoencoder, the text encoder and the feature
map stay those of `shapes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from drpo.method.features.latent_mae import LatentMAE
from drpo.shapes.assets import feature_map_path, generator_path
from drpo.shapes.pretrain import processes
from drpo.shapes.pretrain.coupling import NUM_MODES
from drpo.shapes.pretrain.data import draw_prompts
from drpo.shapes.pretrain.export import save_pipeline
from drpo.shapes.pretrain.one_step import (
    LAST_TIMESTEP,
    LATENT,
    encode_scenes,
    new_unet,
    regression_error,
    scheduler_settings,
)
from drpo.shapes.pretrain.stage import StepRandom, fit
from drpo.shapes.pretrain.text import hidden_states

_PICTURES_PER_FILE = 256
_FEATURE_WEIGHT = 0.15


@dataclass(frozen=True)
class HonestRecipe:
    """The steps and the data of each stage. The defaults are those of the shipped model.

    Attributes:
        seed: seed of every stage.
        pictures: captioned pictures that the flow learns.
        batch: pictures of a step, in both stages.
        flow_steps: steps of the flow's training.
        pairs, euler_steps: pairs of noise and sample, and the flow's steps for each sample.
        distil_steps: steps of the distillation.
    """

    seed: int = 0
    pictures: int = 98_304
    batch: int = 512
    flow_steps: int = 1703
    pairs: int = 98_304
    euler_steps: int = 12
    distil_steps: int = 1182

    @classmethod
    def tiny(cls) -> HonestRecipe:
        """A recipe with a few steps per stage. It runs every stage, but its model draws only noise."""
        return cls(pictures=256, batch=8, flow_steps=2, pairs=16, euler_steps=2, distil_steps=2)


def pretrain_honest(recipe: HonestRecipe, out: Path, num_processes: int = 1, device: str = "cpu") -> None:
    """Trains and writes `out/generator`. Call it again after an interruption to resume.

    Args:
        recipe: what to train.
        out: the folder to write; `out/work` keeps the state.
        num_processes: processes that draw the pictures and, on a CPU, train together.
        device: where the flow and the generator are trained.
    """
    (out / "work").mkdir(parents=True, exist_ok=True)
    processes.run_in_processes(num_processes, _draw, recipe, out / "work")
    trainers = 1 if device.startswith("cuda") else num_processes
    processes.run_in_processes(trainers, _train, recipe, out, device)


def _draw(recipe: HonestRecipe, work: Path) -> None:
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(generator_path(), subfolder="vae", dtype=torch.float32)
    draw_captioned(vae, work, recipe.seed, pictures=recipe.pictures)


@torch.no_grad()
def draw_captioned(vae: AutoencoderKL, folder: Path, seed: int, *, pictures: int) -> tuple[Tensor, Tensor]:
    """Draws pictures with careless captions. They are cached in `folder`; each process draws its share.

    Returns:
        Latents (N, 4, 8, 8) with a standard deviation of 1; and the captions, (N,) indices into `train_prompts()`.
    """
    for part in range(processes.rank(), -(-pictures // _PICTURES_PER_FILE), processes.count()):
        file = folder / f"captioned-{part:04d}.pt"
        if file.exists():
            continue
        rng = np.random.default_rng([seed, 5, part])
        prompts_N = draw_prompts(_PICTURES_PER_FILE, rng)
        modes_NM = rng.standard_normal((_PICTURES_PER_FILE, NUM_MODES))  # of the scene alone, not of a noise
        latents_NChw = encode_scenes(vae, prompts_N, modes_NM)
        torch.save({"latents": latents_NChw, "prompts": torch.from_numpy(prompts_N)}, file)
    processes.wait_for_all()
    parts = [torch.load(file, weights_only=True) for file in sorted(folder.glob("captioned-*.pt"))]
    return torch.cat([part["latents"] for part in parts]), torch.cat([part["prompts"] for part in parts])


def _train(recipe: HonestRecipe, out: Path, device: str) -> None:
    """Trains the flow, draws its samples, distils one step, and exports the pipeline."""
    work, seed = out / "work", recipe.seed
    base = StableDiffusionPipeline.from_pretrained(generator_path(), dtype=torch.float32)
    feature_map = LatentMAE.load(feature_map_path()).float().to(device).eval().requires_grad_(False)
    text_PTD = hidden_states(base.tokenizer, base.text_encoder).to(device)
    latents_NChw, prompts_N = draw_captioned(base.vae, work, seed, pictures=recipe.pictures)
    flow = new_unet().to(device)
    flow.load_state_dict(base.unet.state_dict())
    train_flow(flow, latents_NChw.to(device), prompts_N, text_PTD, work, recipe)
    noise_NChw, samples_NChw, sampled_N = sample_pairs(flow, text_PTD, recipe)
    distil(flow, noise_NChw, samples_NChw, sampled_N, text_PTD, feature_map, work, recipe)
    if processes.rank() == 0:
        pipeline = StableDiffusionPipeline(
            vae=base.vae,
            text_encoder=base.text_encoder,
            tokenizer=base.tokenizer,
            unet=flow.cpu(),
            scheduler=EulerDiscreteScheduler(**scheduler_settings()),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        save_pipeline(pipeline, out / "generator")


def train_flow(
    flow: UNet2DConditionModel, latents_NChw: Tensor, prompts_N: Tensor, text_PTD: Tensor, work: Path,
    recipe: HonestRecipe,
) -> None:  # fmt: skip
    """Trains the velocity z - x of the straight paths from latents x to noises z, at logit-normal times."""
    batch, device = recipe.batch // processes.count(), latents_NChw.device

    def compute_loss(random: StepRandom) -> Tensor:
        chosen = torch.randint(len(latents_NChw), (batch,), generator=random.torch)
        x_NChw = latents_NChw[chosen]
        z_NChw = torch.randn(x_NChw.shape, generator=random.torch).to(device)
        t_N111 = torch.randn(batch, 1, 1, 1, generator=random.torch).sigmoid().to(device)
        velocity_NChw = _velocity(flow, torch.lerp(x_NChw, z_NChw, t_N111), t_N111, text_PTD[prompts_N[chosen]])
        return F.mse_loss(velocity_NChw, z_NChw - x_NChw)

    fit("flow", flow, compute_loss, work, steps=recipe.flow_steps, learning_rate=2e-3, seed=recipe.seed,
        ema_decay=0.9995)  # fmt: skip


@torch.no_grad()
def sample_pairs(flow: UNet2DConditionModel, text_PTD: Tensor, recipe: HonestRecipe) -> tuple[Tensor, Tensor, Tensor]:
    """Noises (N, 4, 8, 8), the flow's samples from them, and their captions (N,)."""
    rng = np.random.default_rng([recipe.seed, 6])
    prompts_N = torch.from_numpy(draw_prompts(recipe.pairs, rng))
    noise_NChw = torch.randn(recipe.pairs, *LATENT, generator=torch.Generator().manual_seed(recipe.seed))
    noise_NChw = noise_NChw.to(text_PTD.device)
    samples = []
    for z_NChw, chosen_N in zip(noise_NChw.split(2048), prompts_N.split(2048), strict=True):
        text_NTD = text_PTD[chosen_N]
        for step in range(recipe.euler_steps):
            t_N111 = torch.full((len(z_NChw), 1, 1, 1), 1 - step / recipe.euler_steps, device=z_NChw.device)
            z_NChw = z_NChw - _velocity(flow, z_NChw, t_N111, text_NTD) / recipe.euler_steps
        samples.append(z_NChw)
    return noise_NChw, torch.cat(samples), prompts_N


def distil(
    unet: UNet2DConditionModel, noise_NChw: Tensor, samples_NChw: Tensor, prompts_N: Tensor, text_PTD: Tensor,
    feature_map: LatentMAE, work: Path, recipe: HonestRecipe,
) -> None:  # fmt: skip
    """Trains one step from noise to sample, starting at the flow. The loss is also taken in the feature map."""
    unet.requires_grad_(True)
    keys = ("layer1", "layer2", "layer3")
    batch = recipe.batch // processes.count()

    def compute_loss(random: StepRandom) -> Tensor:
        chosen = torch.randint(len(noise_NChw), (batch,), generator=random.torch)
        z_NChw, x_NChw = noise_NChw[chosen], samples_NChw[chosen]
        epsilon_NChw = unet(z_NChw / 2**0.5, LAST_TIMESTEP, text_PTD[prompts_N[chosen]]).sample
        predicted_NChw = z_NChw - epsilon_NChw
        with torch.no_grad():
            target = feature_map.features(x_NChw, keys)
        features = feature_map.features(predicted_NChw, keys)
        distance = sum(F.mse_loss(features[key], target[key]) for key in keys)
        return regression_error(predicted_NChw, x_NChw) + _FEATURE_WEIGHT * distance

    fit("one-step", unet, compute_loss, work, steps=recipe.distil_steps, learning_rate=1e-3, seed=recipe.seed,
        ema_decay=0.999)  # fmt: skip
    unet.requires_grad_(False)


def _velocity(flow: UNet2DConditionModel, x_NChw: Tensor, t_N111: Tensor, text_NTD: Tensor) -> Tensor:
    """The flow's velocity. At t = 1 it takes the same input and timestep as the one step that is distilled from it."""
    scale_N111 = (2 * ((1 - t_N111) ** 2 + t_N111**2)).sqrt()  # the input has the standard deviation 1 / sqrt(2)
    return flow(x_NChw / scale_N111, t_N111.flatten() * LAST_TIMESTEP, text_NTD).sample
