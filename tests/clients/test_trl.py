"""TRL's own DDPOTrainer trains with the reward function of docs/trainers/trl.md."""

from __future__ import annotations

import json

import pytest
from clients.environments import make_environment, run_python
from support import ROOT
from support.guides import read_blocks
from support.service import Served

from drpo.shapes.assets import generator_path

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]  # pip may take minutes

# The last TRL with this trainer, and the versions of its time. PyTorch and the rest are those of the tests.
PACKAGES = (
    "trl==0.21.0",
    "transformers==4.55.4",
    "huggingface_hub==0.34.4",
    "tokenizers==0.21.4",
    "diffusers==0.35.1",
    "accelerate==1.10.1",
    "peft==0.17.1",
)

PROGRAM = """
import json, sys, tempfile
task = json.loads(sys.stdin.read())
sys.path.insert(0, task["services"])
exec(task["reward"])
from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

seen = []


def watched(images, prompts, metadata):
    scores, info = reward(images, prompts, metadata)
    seen.append({"shape": list(images.shape), "prompts": prompts, "scores": list(scores)})
    return scores, info


def draw_prompt():
    return "a red circle", {"include": [{"class": "circle", "color": "red", "count": 1}]}


config = DDPOConfig(
    num_epochs=1, sample_num_steps=2, sample_batch_size=3, sample_num_batches_per_epoch=2, train_batch_size=3,
    mixed_precision="no", save_freq=1000, allow_tf32=False, project_kwargs={"project_dir": tempfile.mkdtemp()},
)
DDPOTrainer(config, watched, draw_prompt, DefaultDDPOStableDiffusionPipeline(task["generator"])).train()
print("SEEN", json.dumps(seen))
"""


def test_trl_trains_with_the_guides_reward(served: Served) -> None:
    (block,) = [block for block in read_blocks("python") if block.file_name == "ddpo_reward.py"]
    reward = block.text.replace("http://127.0.0.1:8000", served.http_url)
    task = {"reward": reward, "generator": str(generator_path()), "services": str(ROOT / "services")}
    printed = run_python(make_environment("trl", PACKAGES, beside=True), PROGRAM, stdin=json.dumps(task))
    seen = json.loads(printed.rpartition("SEEN ")[2])
    assert [one["shape"] for one in seen] == [[3, 3, 64, 64]] * 2
    assert all(set(one["prompts"]) == {"a red circle"} for one in seen)
    assert all(0 <= score <= 1 for one in seen for score in one["scores"])
