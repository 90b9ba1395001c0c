"""Adapters of diffusers, peft and kohya, of any rank and alpha, change the embedded generator as they do in their own
libraries; what does not fit is refused by name and number."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoHaConfig, LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from drpo.errors import DrpoError, ModelLoadError, UnsupportedModelError
from drpo.generators import check_adapter
from drpo.generators.adapter_file import read_adapter
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.shapes.assets import generator_path

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
EVERYWHERE = [*ATTENTION, "proj_in", "ff.net.0.proj", "conv1", "time_emb_proj", "conv_out"]
PROMPT = "a red star above a blue ring"


@pytest.fixture(scope="module")
def stock() -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(generator_path())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def ours() -> SDTurboGenerator:
    return SDTurboGenerator.load(generator_path())


@torch.no_grad()
def latents_of(model: StableDiffusionPipeline | SDTurboGenerator, adapter: Path | None = None) -> Tensor:
    """The latents of one picture, with an adapter if one is given."""
    noise = torch.Generator().manual_seed(3)
    if isinstance(model, SDTurboGenerator):
        if adapter is not None:
            model.adapter.load(adapter)
        return model.sample(model.noise(1, noise), model.encode_prompts([PROMPT]))
    if adapter is not None:
        model.load_lora_weights(adapter)
    try:
        steps = {"num_inference_steps": 1, "guidance_scale": 0.0}
        return model(PROMPT, **steps, generator=noise, output_type="latent").images
    finally:
        if adapter is not None:
            model.unload_lora_weights()


def new_adapter(unet: UNet2DConditionModel, **settings: object) -> PeftModel:
    """A copy of the U-Net with an adapter of peft, as after training: no weight is 0."""
    torch.manual_seed(1)
    model = get_peft_model(deepcopy(unet), LoraConfig(**{"r": 4, "target_modules": ATTENTION, **settings}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def plain_state(model: PeftModel) -> dict[str, Tensor]:
    return {name.removeprefix("base_model.model."): one for name, one in get_peft_model_state_dict(model).items()}


def kohya_state(model: PeftModel, alpha: Callable[[int], float | None]) -> dict[str, Tensor]:
    """The names that kohya's scripts write; `alpha` gives that of the layer with a number."""
    state: dict[str, Tensor] = {}
    for number, (name, down) in enumerate(plain_state(model).items()):
        layer, _, rest = name.rpartition(".lora_")
        prefix = f"lora_unet_{layer.replace('.', '_')}"
        state[f"{prefix}.{'lora_down' if rest.startswith('A') else 'lora_up'}.weight"] = down.contiguous()
        if rest.startswith("A") and (value := alpha(number)) is not None:
            state[f"{prefix}.alpha"] = torch.tensor(value)
    return state


@pytest.fixture(scope="module")
def base(stock: StableDiffusionPipeline) -> Tensor:
    return latents_of(stock)


def assert_same_picture(ours: Tensor, theirs: Tensor, base: Tensor) -> None:
    change = (theirs - base).abs().max()
    assert change > 0.05  # the adapter does something
    assert (ours - theirs).abs().max() < 1e-3 * change


@pytest.mark.parametrize(
    ("rank", "alpha", "layers", "old_names"),
    [
        (2, None, ATTENTION, True),
        (2, None, ATTENTION, False),
        (8, 4, ATTENTION, True),
        (16, 4.5, ["to_q"], True),  # the old names exist for attention layers only
        (3, 3, EVERYWHERE, False),
    ],
)
def test_adapters_of_diffusers(rank, alpha, layers, old_names, stock, ours, base, tmp_path: Path) -> None:
    settings = {"r": rank, "lora_alpha": alpha or rank, "target_modules": layers}
    state = plain_state(new_adapter(stock.unet, **settings))
    state = convert_state_dict_to_diffusers(state) if old_names else state
    metadata = LoraConfig(**settings).to_dict() if alpha else None
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=metadata)
    assert_same_picture(latents_of(ours, tmp_path), latents_of(stock, tmp_path), base)


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 8, "lora_alpha": 2},
        {"lora_alpha": 8, "use_rslora": True},
        {
            "lora_alpha": 6,
            "rank_pattern": {"to_k": 2, "mid_block.*to_v": 7},
            "alpha_pattern": {"to_q": 1, "attn2.to_k": 16},
        },
    ],
)
def test_adapters_of_peft(settings: dict[str, object], stock, ours, base, tmp_path: Path) -> None:
    model = new_adapter(stock.unet, **settings)
    model.save_pretrained(tmp_path)
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {file.name for file in tmp_path.iterdir()}
    theirs = copy(stock)
    theirs.unet = model.get_base_model()  # the layers of peft are inside
    assert_same_picture(latents_of(ours, tmp_path), latents_of(theirs), base)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(ModelLoadError, match=r"strength.*adapter_config.json, which is missing"):
        ours.adapter.load(tmp_path)


@pytest.mark.parametrize("alpha", [None, 1.0, 16.0])
def test_adapters_of_kohya(alpha: float | None, stock, ours, base, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    save_file(kohya_state(new_adapter(stock.unet, target_modules=EVERYWHERE), lambda _: alpha), file)
    assert_same_picture(latents_of(ours, file), latents_of(stock, file), base)


def test_each_layer_of_a_kohya_file_has_its_own_alpha(stock, ours, base, tmp_path: Path) -> None:
    """Stock diffusers takes the most frequent alpha for all attention layers, so the weights are merged by hand."""
    model = new_adapter(stock.unet)
    save_file(kohya_state(model, lambda number: 1.0 + number % 5), tmp_path / "style.safetensors")
    merged, state = copy(stock), plain_state(model)
    merged.unet = deepcopy(stock.unet)
    with torch.no_grad():
        for number, name in enumerate(state):
            if ".lora_A" in name:
                up, down = state[name.replace("lora_A", "lora_B")], state[name]
                weight = merged.unet.get_submodule(name.partition(".lora_A")[0]).weight
                weight += (1.0 + number % 5) / 4 * up @ down
    assert_same_picture(latents_of(ours, tmp_path), latents_of(merged), base)


def test_an_adapter_is_replaced_by_one_of_another_rank_and_saved_as_it_is(stock, base, tmp_path: Path) -> None:
    one, two, saved = tmp_path / "one.safetensors", tmp_path / "two", tmp_path / "saved"
    save_file(kohya_state(new_adapter(stock.unet), lambda number: 1.0 + number % 5), one)
    new_adapter(stock.unet, r=2, target_modules=EVERYWHERE).save_pretrained(two)
    ours, replaced = SDTurboGenerator.load(generator_path()), SDTurboGenerator.load(generator_path())
    plain = latents_of(replaced)
    latents_of(replaced, two)
    assert torch.equal(latents_of(replaced, one), latents_of(ours, one))
    with replaced.reference():
        assert torch.equal(latents_of(replaced), plain)
    latents_of(replaced, two)
    replaced.adapter.save(saved)
    assert_same_picture(latents_of(replaced), latents_of(stock, saved), base)
    assert torch.equal(latents_of(replaced), latents_of(ours, saved))


def test_names_with_other_prefixes_are_the_same_layers(stock, tmp_path: Path) -> None:
    state = plain_state(new_adapter(stock.unet))
    prefixes = ("", "unet.", "base_model.model.", "base_model.model.unet.")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    for prefix in prefixes:
        save_file({prefix + name: one for name, one in state.items()}, tmp_path / "adapter.safetensors")
        found = read_adapter(tmp_path, stock.unet)
        assert {f"{layer}.lora_A.weight" for layer in found} == {name for name in state if "lora_A" in name}
        assert all(torch.equal(one.down, state[f"{layer}.lora_A.weight"]) for layer, one in found.items())
        assert {(one.rank, one.alpha) for one in found.values()} == {(4, 8.0)}


def test_kohya_files_with_the_block_numbers_of_the_original_code(stock, tmp_path: Path) -> None:
    """SDXL's numbers: in the embedded U-Net `input_blocks_1` is the first layer of the first block, and so on."""
    numbers = {"down_blocks.0.attentions.0": "input_blocks_1_1", "up_blocks.1.attentions.1": "output_blocks_3_1"}
    updates = {}
    for layer, number in numbers.items():
        weight = stock.unet.get_submodule(f"{layer}.transformer_blocks.0.attn1.to_q").weight
        key = f"lora_unet_{number}_transformer_blocks_0_attn1_to_q"
        updates[f"{key}.lora_down.weight"] = torch.ones(2, weight.shape[1])
        updates[f"{key}.lora_up.weight"] = torch.ones(weight.shape[0], 2)
    save_file(updates, tmp_path / "sgm.safetensors")
    found = read_adapter(tmp_path, stock.unet)
    assert sorted(found) == sorted(f"{layer}.transformer_blocks.0.attn1.to_q" for layer in numbers)


def test_half_precision_adapters_are_taken_exactly(trained: dict[str, Tensor], stock, tmp_path: Path) -> None:
    save_file({name: one.half() for name, one in trained.items()}, tmp_path / "half.safetensors")
    found = read_adapter(tmp_path, stock.unet)
    for layer, one in found.items():
        assert torch.equal(one.down, trained[f"unet.{layer}.lora_A.weight"].half().float())


def test_a_base_of_16_bits_does_not_round_the_adapter(trained: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(trained, tmp_path / "a.safetensors")
    generator = SDTurboGenerator.load(generator_path(), dtype=torch.bfloat16)
    generator.adapter.load(tmp_path)
    assert generator.adapter.state().keys() == {name.removeprefix("unet.") for name in trained}
    assert all(torch.equal(one, trained[f"unet.{name}"]) for name, one in generator.adapter.state().items())


def rename(state: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new): one for name, one in state.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: rename(state, "down_blocks.0", "down_blocks.7"), r"48 of its 56 .*no such layer.*and 5 more"),
        (lambda state: rename(state, "attentions", "layers"), r": 0 of its 56 layers match the U-Net"),
        (lambda state: {name: one[:, :40] if "lora_A" in name else one for name, one in state.items()}, r"0 of its 56"),
        (lambda state: dict(list(state.items())[1:]), r"55 of its 56 .*a factor is missing"),
        (lambda state: state | {"text_encoder.q_proj.lora_A.weight": torch.ones(1, 1)}, "text encoder .1 of its 113"),
        (lambda state: state | {"unet.conv_in.lora_magnitude_vector": torch.ones(4)}, "of the kind DoRA"),
        (lambda state: {"lora_unet_conv_in.hada_w1_a": torch.ones(4, 4)}, "of the kind LoHa"),
        (lambda state: {"lora_unet_conv_in.lokr_w1": torch.ones(4, 4)}, "of the kind LoKr"),
        (lambda state: {"unet.conv_norm_out.weight": torch.ones(4)}, "is no LoRA adapter: 1 of its 1 tensors"),
        (lambda state: {name: one * float("nan") for name, one in state.items()}, "not finite"),
        (lambda state: state | {name.removeprefix("unet."): one + 1 for name, one in state.items()}, "there twice"),
        (lambda state: state | {"unet.conv_in.alpha": torch.ones(3)}, "is no LoRA adapter: 1 of its 113 tensors"),
        (lambda state: state | {"unet.conv_in.alpha": torch.ones(())}, r"56 of its 57 .*conv_in \(a factor is missing"),
        (lambda state: {name: (one * 99).to(torch.int8) for name, one in state.items()}, "112 of its 112 tensors"),
        (lambda state: {}, "has no tensors"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_counts(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str, trained: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file({name: one.contiguous() for name, one in change(dict(trained)).items()}, tmp_path / "a.safetensors")
    with pytest.raises((ModelLoadError, UnsupportedModelError), match=words):
        check_adapter(tmp_path, generator_path())


@pytest.fixture(scope="module")
def trained(stock: StableDiffusionPipeline) -> dict[str, Tensor]:
    return {f"unet.{name}": one for name, one in plain_state(new_adapter(stock.unet)).items()}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "kind DoRA"),
        ({"init_lora_weights": "pissa"}, "'pissa', which also changes the base"),
        ({"peft_type": "IA3"}, "kind IA3"),
        ({"lora_alpha": "strong"}, "adapter_config.json is not a LoRA config"),
        ({"alpha_pattern": {"(": 3}}, "adapter_config.json is not a LoRA config"),
    ],
)
def test_settings_of_peft_that_mean_something_else_are_refused(
    settings: dict[str, object], words: str, trained: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(trained, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, **settings}))
    with pytest.raises(DrpoError, match=words):
        check_adapter(tmp_path, generator_path())


def test_other_kinds_of_peft_are_refused_by_name(stock, tmp_path: Path) -> None:
    get_peft_model(deepcopy(stock.unet), LoHaConfig(r=2, target_modules=["to_q"])).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="LoHa"):
        check_adapter(tmp_path, generator_path())


def test_files_that_are_no_adapters_are_refused(trained: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no adapter in"):
        check_adapter(tmp_path, generator_path())
    save_file(trained, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for damaged in (b"", b"version https://git-lfs.github.com/spec/v1\n", whole[:-100]):
        (tmp_path / "a.safetensors").write_bytes(damaged)
        with pytest.raises(ModelLoadError, match=r"cannot read .*a.safetensors"):
            check_adapter(tmp_path, generator_path())
    (tmp_path / "b.safetensors").write_bytes(whole)
    with pytest.raises(ModelLoadError, match=r"several .* \(a.safetensors, b.safetensors\): give the adapter's file"):
        check_adapter(tmp_path, generator_path())
    check_adapter(tmp_path / "b.safetensors", generator_path())


def test_an_adapter_that_does_not_fit_changes_nothing(trained: dict[str, Tensor], tmp_path: Path) -> None:
    generator = SDTurboGenerator.load(generator_path())
    save_file(trained, tmp_path / "good.safetensors")
    save_file(rename(trained, "mid_block", "middle"), tmp_path / "bad.safetensors")
    generator.adapter.load(tmp_path / "good.safetensors")
    before = latents_of(generator)
    with pytest.raises(ModelLoadError, match="of its 56"):
        generator.adapter.load(tmp_path / "bad.safetensors")
    assert torch.equal(latents_of(generator), before)
