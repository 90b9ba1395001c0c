"""`lora.adapter` and `drpo train --adapter`: a run that starts from an adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from drpo.checks import make_paths_absolute
from drpo.checks.models import check_models
from drpo.checks.plan import Plan
from drpo.cli import app
from drpo.config import LoraConfig, load_config
from drpo.generators import load_generator
from drpo.generators.export import export_adapter
from drpo.shapes.assets import generator_path
from drpo.training.build import build_generator
from drpo.training.memory import estimate_memory
from drpo.training.resume import fixed_settings


@pytest.fixture(scope="module")
def kohya(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of another program, of rank 2 and strength 3 / 2, on two kinds of layers."""
    generator = load_generator(generator_path(), lora=LoraConfig(rank=2, alpha=3.0, target_modules=("to_q", "to_v")))
    with torch.no_grad():
        for number, parameter in enumerate(generator.adapter.parameters()):
            parameter.fill_(0.01 * (number + 1))
    file = tmp_path_factory.mktemp("kohya") / "style.safetensors"
    export_adapter(generator, "kohya", file)
    return file


def test_training_starts_from_the_adapter_and_its_reference_is_the_base(kohya: Path) -> None:
    generator = build_generator(load_config("shapes", [f"lora.adapter={kohya}"]))
    updates = generator.adapter.updates()
    assert {(one.rank, one.alpha) for one in updates.values()} == {(2, 3.0)}
    assert {name.rpartition(".")[2] for name in updates} == {"to_q", "to_v"}
    assert all(parameter.requires_grad for parameter in generator.adapter.parameters())
    base = build_generator(load_config("shapes"), adapter=False)
    noise_NChw = base.noise(1, torch.Generator().manual_seed(0))
    conditions = base.encode_prompts(["a red circle"])
    with torch.no_grad():
        expected_NChw, started_NChw = base.sample(noise_NChw, conditions), generator.sample(noise_NChw, conditions)
        with generator.reference():
            torch.testing.assert_close(generator.sample(noise_NChw, conditions), expected_NChw)
    assert (started_NChw - expected_NChw).abs().max() > 0.1


def test_its_memory_is_that_of_the_ranks_and_layers_of_the_file(kohya: Path) -> None:
    config = load_config("shapes", [f"lora.adapter={kohya}", "training.candidates=2"])
    weights = build_generator(config).adapter.parameters()
    assert estimate_memory(config).optimizer == 3 * sum(4 * one.numel() for one in weights)


def test_a_moved_adapter_does_not_keep_a_run_from_going_on(kohya: Path) -> None:
    configs = [load_config("shapes", [f"lora.adapter={place}"]) for place in (kohya, "elsewhere.safetensors")]
    assert fixed_settings(configs[0]) == fixed_settings(configs[1])


def test_what_is_no_start_is_told_before(kohya: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unet, start = generator_path() / "unet", ["train", "--preset", "shapes", "--run.folder", str(tmp_path / "runs")]
    for options, message in (
        ([tmp_path], "lora.adapter: there is neither a LoRA adapter nor a U-Net in"),
        ([""], "lora.adapter = '': string should have at least 1 character"),
        ([kohya, "--lora", "null"], "lora.adapter cannot be set with lora: null; leave one"),
        ([kohya, "--lora", "~"], "lora.adapter cannot be set with lora: null; leave one"),
        ([unet], f"lora.adapter: {unet} is a whole U-Net: train on from it with --model.unet"),
    ):
        with pytest.raises(SystemExit) as ended:
            app([*start, "--adapter", *map(str, options)])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    config = make_paths_absolute(load_config("shapes", [f"lora.adapter={kohya}"]))
    found = next(one for one in check_models(Plan(config)) if one.about == "lora.adapter")
    assert (found.state, found.found) == ("ok", f"{kohya} fits the generator")
