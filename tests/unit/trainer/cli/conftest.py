"""A run for the commands that use an adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from drpo.config import LoraConfig, parse_config
from drpo.generators import load_generator
from drpo.shapes.assets import generator_path
from drpo.training.run_folder import ADAPTER, create_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the embedded generator, with an adapter of a rank that is not in its settings."""
    run_dir = create_run(parse_config({"run": {"folder": str(tmp_path_factory.mktemp("runs")), "name": "mine"}}))
    torch.manual_seed(0)
    generator = load_generator(generator_path(), lora=LoraConfig(rank=3, alpha=5))
    with torch.no_grad():
        for parameter in generator.adapter.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    generator.adapter.save(run_dir / ADAPTER)
    return run_dir
