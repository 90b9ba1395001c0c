"""The check before a start: the files of the generator, and every prompt of training and evaluation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from drpo.checks.models import check_models
from drpo.checks.plan import Plan
from drpo.checks.prompts import check_prompts
from drpo.config import load_config
from drpo.shapes.assets import generator_path
from drpo_rewards.findings import Finding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the embedded generator, whose files are links."""
    copy = tmp_path / "generator"
    shutil.copytree(generator_path(), copy, copy_function=lambda source, target: Path(target).symlink_to(source))
    return copy


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])


def write(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    file.write_text(text)


def split_into_shards(unet: Path) -> None:
    """Leaves an index of two shards, of which one is there."""
    weights = unet / "diffusion_pytorch_model.safetensors"
    weights.rename(unet / "diffusion_pytorch_model-00001-of-00002.safetensors")
    shards = {"a": weights.stem + "-00001-of-00002.safetensors", "b": weights.stem + "-00002-of-00002.safetensors"}
    write(unet / "diffusion_pytorch_model.safetensors.index.json", json.dumps({"weight_map": shards}))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "model_index.json"),
    "another pipeline": (
        lambda folder: write(folder / "model_index.json", '{"_class_name": "FluxPipeline"}'),
        "its pipeline is FluxPipeline",
    ),
    "no part": (lambda folder: shutil.rmtree(folder / "vae"), "vae/ is missing or empty"),
    "cut weights": (lambda folder: cut(folder / "text_encoder" / "model.safetensors"), "is cut or damaged"),
    "lost shard": (lambda folder: split_into_shards(folder / "unet"), "-00002-of-00002.safetensors is missing"),
}
"""The tests of `drpo.generators.loading` have more of them."""


def test_an_adapter_is_compared_with_the_generator(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.safetensors"
    adapter.write_bytes(b"no adapter")
    whole, finding = check_models(Plan(load_config("shapes"), "sample", adapter=adapter))
    assert (whole.state, finding.state) == ("ok", "wrong")
    assert finding.found.startswith("--adapter: ")
    assert str(adapter) in finding.found


@pytest.mark.parametrize("kind", BROKEN)
def test_a_generator_that_is_not_whole(kind: str, folder: Path) -> None:
    damage, message = BROKEN[kind]
    damage(folder)
    findings = list(check_models(Plan(load_config("shapes", [f"model.generator={folder}"]))))
    assert [finding.state for finding in findings] == ["wrong"]
    assert message in findings[0].found
    assert str(folder) in findings[0].found


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        ("", "model.generator is empty"),
        ("no/such/folder", "there is no folder 'no/such/folder'"),
        (__file__, "is a file"),
        ("owner/model-that-is-nowhere", "is neither a folder nor in the hub's cache"),
    ],
)
def test_a_generator_that_is_not_here(generator: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = load_config("shapes")
    config.model.generator = generator
    (finding,) = check_models(Plan(config))
    assert finding.state == "wrong"
    assert message in finding.found


def check_file(path: Path, *overrides: str) -> list[Finding]:
    config = load_config("shapes", ["prompts.source=file", f"prompts.path={path}", *overrides])
    return list(check_prompts(Plan(config)))


def test_every_prompt_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [{"prompt": "a red ring"}, {"prompt": "x" * 10_001}, {"prompt": "b", "metadata": {"a": "y" * 100_001}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) * 30)
    found = [finding.found for finding in check_file(path, "evaluation.enabled=false")]
    assert found[0].startswith("prompt 2 of prompts ('xxx")
    assert "at most 10000 characters" in found[0]
    assert "prompt 3 of prompts ('b') is refused" in found[1]
    assert found[20:] == ["40 more prompts of prompts are wrong"]


def test_half_a_character(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a red ring"}\n{"prompt": "a \\ud83d circle"}\n')
    wrong = [finding for finding in check_file(path, "evaluation.enabled=false") if finding.state == "wrong"]
    assert wrong
    assert "2" in wrong[0].found
    assert "\\ud83d" in wrong[0].found or "surrogate" in wrong[0].found


def test_long_prompts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    prompts = ["a red ring", "a red ring " * 40, "ring"]
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    training, evaluation = check_file(path, "prompts.allow_overlap=true")
    assert training.state == evaluation.state == "ok"
    assert training.found == "3 prompts; the generator reads only the first 16 tokens of 1 of them"


def test_a_missing_file_has_the_name_of_its_setting(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a red ring"}\n')
    (_, finding) = check_file(path, f"evaluation.path={tmp_path}/none.jsonl")
    assert (finding.state, finding.about) == ("wrong", "evaluation")
    assert f"evaluation.path: there is no file {tmp_path}/none.jsonl" in finding.found
    findings = check_file(tmp_path / "none.jsonl")  # evaluation reads the same file, so it is one finding
    assert findings[0] == findings[1]
    assert "prompts.path: there is no file" in findings[0].found


def test_texts_of_the_command_line() -> None:
    config = load_config("shapes")
    (finding,) = check_prompts(Plan(config, "sample", texts=("a red ring", "a \udcff ring")))
    assert finding.state == "wrong"
    assert "prompt 2 of prompt ('a \\udcff ring') holds the byte \\xff, which is not UTF-8" in finding.found
    assert [finding.state for finding in check_prompts(Plan(config, "sample", texts=("",)))] == ["ok"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("to_q,to_x", "no layer of the U-Net has a name that ends with 'to_x'; did you mean to_"),
        ("to_out", "which 'to_out' selects, takes no update (it is a ModuleList); did you mean to_out.0?"),
        ("norm3", "takes no update (it is a LayerNorm)"),
    ],
)
def test_the_layers_of_the_adapter_are_there(names: str, message: str) -> None:
    config = load_config("shapes", [f"lora.target_modules={names}", "lora.rank=100000"])
    (finding,) = [one for one in check_models(Plan(config)) if one.state == "wrong"]
    assert (finding.about, message in finding.found) == ("lora", True)
    assert [
        one.state for one in check_models(Plan(load_config("shapes", ["lora.target_modules=conv_in,to_out.0"])))
    ] == ["ok"]


def test_the_rank_of_the_adapter_is_one_that_a_layer_can_use() -> None:
    """The widest layers of the embedded generator have 96 channels; the rank of an adapter's file counts instead."""
    (_, finding) = check_models(Plan(load_config("shapes", ["lora.rank=97"])))
    assert finding.state == "wrong"
    assert finding.found == "lora.rank is 97, but no layer that gets an update can use more than 96"
    assert [one.state for one in check_models(Plan(load_config("shapes", ["lora.rank=96"])))] == ["ok"]
    begun = Plan(load_config("shapes", ["lora.rank=97"]), run_dir=Path())  # by an earlier version, which allowed it
    assert [one.state for one in check_models(begun)] == ["ok"]


def test_a_variant_that_no_part_has_is_refused() -> None:
    (finding,) = check_models(Plan(load_config("shapes", ["model.variant=fp61"])))
    assert "no part has weights of the variant fp61, only plain ones" in finding.found
