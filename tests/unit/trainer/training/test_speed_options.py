"""Options for speed and memory: equal results within rounding, choices that are kept, prompts that are encoded once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny.sd_turbo import write_tiny_pipeline
from support.tiny_training import settings, write_home

from drpo.config import Config, LoraConfig, OptimizerConfig, TrainingConfig
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.training.choices import choose_memory, describe_choices, measure_decode_chunk, settle_decoding, settle_memory
from drpo.training.prompt_cache import PromptCache
from drpo.training.speed import speed_up
from drpo.training.trainer import DrPOTrainer


def gradients(trainer: DrPOTrainer) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in trainer.parameters])


@pytest.mark.parametrize("option", ["channels_last", "tf32"])
def test_an_option_for_speed_changes_the_gradient_by_rounding_only(make_trainer, records, option: str) -> None:
    precision = torch.get_float32_matmul_precision()
    plain, fast = make_trainer(), make_trainer()
    try:
        speed_up(fast.generator, TrainingConfig(**{option: True}))
        # A CPU may compute the same with it, so its only sure trace is torch's own switch.
        assert (torch.get_float32_matmul_precision() == "high") is (option == "tf32")
        for trainer in (plain, fast):
            trainer.run_step(records)
    finally:
        torch.set_float32_matmul_precision(precision)
    if option == "channels_last":
        weights = [one for one in fast.generator.unet.parameters() if one.ndim == 4 and min(one.shape) > 1]
        assert all(one.is_contiguous(memory_format=torch.channels_last) for one in weights)
    assert (gradients(plain) - gradients(fast)).norm() < 1e-3 * gradients(plain).norm()


def test_the_fused_update_equals_the_plain_one_within_rounding(make_trainer, records) -> None:
    plain, fused = make_trainer(), make_trainer()
    options = OptimizerConfig(lr=5e-2, fused=True)
    fused.optimizer = DrPOTrainer(
        fused.generator, None, fused.runner.objective, None, TrainingConfig(), options
    ).optimizer
    assert fused.optimizer.defaults["fused"]
    for _ in range(2):
        plain.run_step(records)
        fused.run_step(records)
    for one, other in zip(plain.parameters, fused.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.compiled
@pytest.mark.timeout(1800)
def test_compiled_networks_have_the_gradient_of_the_plain_ones(make_trainer, records, tmp_path: Path) -> None:
    folder = write_tiny_pipeline(tmp_path / "tiny", one_block=True)
    plain, fast = make_trainer(pipeline_folder=folder), make_trainer(pipeline_folder=folder)
    speed_up(fast.generator, TrainingConfig(compile=True))
    compiled = torch._dynamo.utils.counters["stats"]
    before = compiled["unique_graphs"]
    for trainer in (plain, fast):
        trainer.run_step(records[:1])
    assert compiled["unique_graphs"] > before
    assert (gradients(plain) - gradients(fast)).norm() < 1e-3 * gradients(plain).norm()


def test_a_prompt_is_encoded_once_while_its_encoding_is_kept(tiny: Path) -> None:
    generator = SDTurboGenerator.load(tiny)
    runs = []
    generator.text_encoder.register_forward_hook(lambda *_: runs.append(1))
    cache = PromptCache(generator)
    first = cache.encode("a red circle")
    assert cache.encode("a red circle") is first
    assert torch.equal(first.text_NTD, generator.encode_prompts(["a red circle"]).text_NTD)
    assert len(runs) == 2  # the second one is that of this test
    size = first.text_NTD.numel() * first.text_NTD.element_size()
    small = PromptCache(generator, kept_bytes=2 * size)
    for prompt in ("a", "b", "a", "c", "a"):  # b was used longest ago when c came
        small.encode(prompt)
    assert len(runs) == 2 + 3
    small.encode("b")
    assert len(runs) == 2 + 4


def config_of(home: Path, **training: object) -> Config:
    return Config.model_validate({**settings(home, **training), "rewards": {"service": "shapes"}})


def test_memory_is_chosen_by_what_is_free_and_the_choice_is_kept(tmp_path: Path) -> None:
    config = config_of(write_home(tmp_path), memory="auto")
    roomy = choose_memory(config, 2**40)
    assert (roomy.gradient_checkpointing, roomy.chunk_size) == (False, None)
    tight = choose_memory(config, roomy.estimate.total - 1)
    assert tight.gradient_checkpointing or tight.chunk_size is not None
    assert tight.estimate.total < roomy.estimate.total
    least = choose_memory(config, 0)
    assert (least.gradient_checkpointing, least.chunk_size) == (True, 1)

    settled = settle_memory(config, tmp_path, torch.device("cpu"))
    assert settled.training.chunk_size is None  # this machine has room for a tiny generator
    (line,) = describe_choices(tmp_path)
    assert line.startswith("training.memory auto: the graph is held: about")
    kept = (tmp_path / "choices.json").read_text()
    (tmp_path / "choices.json").write_text(kept.replace('"chunk_size": null', '"chunk_size": 3'))
    assert settle_memory(config, tmp_path, torch.device("cpu")).training.chunk_size == 3  # as a resumed run reads it
    for damaged in ("[1]", "3", '{"memory": {"why": "so"}}', '{"memory": null}', '{"memory": 3}', "[" * 100_000):
        (tmp_path / "choices.json").write_text(damaged)
        assert list(describe_choices(tmp_path)) == []
        assert settle_memory(config, tmp_path, torch.device("cpu")).training.chunk_size is None


def test_the_decoder_is_measured_once_a_run(tiny: Path, tmp_path: Path) -> None:
    generator = SDTurboGenerator.load(tiny, lora=LoraConfig(rank=4))
    assert measure_decode_chunk(generator, 6) in (1, 2, 4, 6)
    assert measure_decode_chunk(generator, 6, seconds=0.0) == 1  # no time for a second number
    assert generator.decode_chunk == 8
    config = config_of(write_home(tmp_path), decode_chunk="auto")
    settle_decoding(config, tmp_path, generator)
    first = generator.decode_chunk
    generator.decode_chunk = 8
    settle_decoding(config, tmp_path, generator)
    assert generator.decode_chunk == first
    assert any("training.decode_chunk auto" in line for line in describe_choices(tmp_path))
    settle_decoding(config_of(tmp_path, decode_chunk=5), tmp_path, generator)
    assert generator.decode_chunk == 5
