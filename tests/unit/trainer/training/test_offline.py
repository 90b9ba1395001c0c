"""Offline training with a real tiny generator: the cache of latents, the supports of a group, and what is learned."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from support.preferences import PROMPTS, write_pickapic, write_table

from drpo.config import Config, LoraConfig, OptimizerConfig, TrainingConfig, parse_config
from drpo.data.preferences.cache import LatentCache
from drpo.data.preferences.pictures import read_picture
from drpo.data.prompts import PromptOrder, PromptRecord
from drpo.errors import ConfigError, DrpoError
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.method.features import load_feature_map
from drpo.method.objectives import load_objective
from drpo.method.objectives.base import Group, Supports
from drpo.method.objectives.drpo import DrPOObjective
from drpo.training import encoding
from drpo.training.encoding import EncodingCount, encode_preferences, find_cache
from drpo.training.offline import Neighbours, OfflineSupervision, preference_margins
from drpo.training.parts import supervise
from drpo.training.trainer import DrPOTrainer


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("preferences") / "set")


@pytest.fixture(scope="module")
def generator(tiny: Path) -> SDTurboGenerator:
    return SDTurboGenerator.load(tiny)


def offline_config(folder: Path, **offline: Any) -> Config:
    return parse_config({"run": {"folder": str(folder)}, "offline": offline, "evaluation": {"enabled": False}})


MakeTrainer = Callable[..., DrPOTrainer]


@pytest.fixture
def make_offline(tiny: Path, table: Path, tmp_path: Path) -> MakeTrainer:
    """Makes an offline trainer of the tiny generator; `offline` has settings of that section, the rest of the loop."""

    def make(offline: dict[str, Any] | None = None, objective: Any = None, **settings: Any) -> DrPOTrainer:
        torch.manual_seed(0)
        config = offline_config(tmp_path, path=str(table), **(offline or {}))
        generator = SDTurboGenerator.load(tiny, lora=LoraConfig(rank=4))
        assert config.offline is not None
        return DrPOTrainer(
            generator,
            load_feature_map("raw_latent"),
            objective or load_objective("drpo", {"radii": [0.2, 0.5, 1.0]}),
            OfflineSupervision(encode_preferences(config, generator), config.offline, generator),
            TrainingConfig(**{"candidates": 6, "groups_per_step": 2, **settings}),
            OptimizerConfig(lr=5e-2),
        )

    return make


RECORDS = [PromptRecord(prompt) for prompt in PROMPTS[:2]]


def untimed(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("seconds", "images_per_s")}


# -- the cache --------------------------------------------------------------------------------------------------------


def test_the_cache_holds_what_the_autoencoder_of_diffusers_encodes(
    generator: SDTurboGenerator, table: Path, tmp_path: Path
) -> None:
    cache = encode_preferences(offline_config(tmp_path, path=str(table), batch_size=3), generator)
    images = cache.read_index()
    assert list(images) == list(PROMPTS)
    file = table.parent / "images" / "2-1-rejected.png"
    pixels_13HW = read_picture(file, generator.image_size, "here")[None]
    with torch.no_grad():
        expected = generator.vae.encode(pixels_13HW).latent_dist.mean * 0.18215
    torch.testing.assert_close(cache.read(images[PROMPTS[2]].rejected)[1], expected[0], atol=2e-3, rtol=2e-3)
    assert len(images[PROMPTS[2]].chosen) == 2


def test_a_sample_of_the_posterior_is_another_latent_and_has_its_own_cache(
    generator: SDTurboGenerator, table: Path, tmp_path: Path
) -> None:
    mode = encode_preferences(offline_config(tmp_path, path=str(table)), generator)
    sample_settings = offline_config(tmp_path, path=str(table), posterior="sample")
    sample = encode_preferences(sample_settings, generator)
    assert mode.folder != sample.folder
    places = mode.read_index()[PROMPTS[0]].chosen
    file = table.parent / "images" / "0-0-chosen.png"
    with torch.no_grad():
        posterior = generator.vae.encode(read_picture(file, generator.image_size, "")[None]).latent_dist
    drawn = (sample.read(places)[0] / 0.18215 - posterior.mean[0]) / posterior.std[0]
    assert abs(drawn.mean()) < 0.4  # of 256 standard normal numbers
    assert 0.7 < drawn.std() < 1.3


def test_the_images_of_a_caption_are_grouped_over_files(generator: SDTurboGenerator, tmp_path: Path) -> None:
    folder = write_pickapic(tmp_path / "pick")
    cache = encode_preferences(offline_config(tmp_path, source="pickapic_v2", path=str(folder)), generator)
    counts = {prompt: (len(images.chosen), len(images.rejected)) for prompt, images in cache.read_index().items()}
    assert counts == dict(zip(PROMPTS, [(2, 2), (2, 2), (1, 1), (1, 1)], strict=True))


def test_encoding_that_was_interrupted_goes_on(
    generator: SDTurboGenerator, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of one preference: the third image is broken at first, and then two blocks are there already."""
    monkeypatch.setattr(encoding, "BLOCK", 1)
    folder = write_table(tmp_path / "set").parent
    broken = folder / "images" / "2-0-chosen.png"
    whole, times = broken.read_bytes(), broken.stat()
    broken.write_bytes(b"x" * len(whole))
    set_times(broken, times)
    config = offline_config(tmp_path, path=str(folder / "preferences.jsonl"))
    with pytest.raises(DrpoError, match=r"preferences.jsonl:3: cannot read .*2-0-chosen.png"):
        encode_preferences(config, generator)
    cache = find_cache(config, generator)
    assert not cache.complete
    blocks = sorted((cache.folder / "blocks").iterdir())
    assert len(blocks) == 2
    before = [block.stat().st_mtime_ns for block in blocks]
    blocks[1].write_bytes(blocks[1].read_bytes()[:100])  # as a full disk leaves it

    broken.write_bytes(whole)
    set_times(broken, times)
    done: list[int] = []
    cache = encode_preferences(config, generator, progress=done.append)
    assert done == [1, 2, 3, 4]
    assert blocks[0].stat().st_mtime_ns == before[0]
    once = encode_preferences(offline_config(tmp_path / "again", path=str(folder / "preferences.jsonl")), generator)
    for prompt, images in once.read_index().items():
        assert torch.equal(once.read(images.chosen), cache.read(cache.read_index()[prompt].chosen))
    assert encode_preferences(config, generator, progress=done.append).folder == cache.folder
    assert done == [1, 2, 3, 4]  # nothing was done the third time


def set_times(path: Path, times: Any) -> None:
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_another_autoencoder_has_another_cache(generator: SDTurboGenerator, tiny: Path, table: Path, tmp_path: Path):
    config = offline_config(tmp_path, path=str(table))
    other = SDTurboGenerator.load(tiny)
    assert find_cache(config, other).folder == find_cache(config, generator).folder
    with torch.no_grad():
        next(other.vae.parameters()).add_(1e-3)
    assert find_cache(config, other).folder != find_cache(config, generator).folder


# -- a step -----------------------------------------------------------------------------------------------------------


def test_candidates_move_the_way_from_rejected_to_chosen_images(make_offline: MakeTrainer) -> None:
    """From new noises, every latent moves along the way from the mean rejected latent to the mean chosen one."""
    keeper = KeepSupports()
    trainer = make_offline(objective=keeper)
    lines = [trainer.run_step(RECORDS) for _ in range(12)]
    for record, group in zip(RECORDS, keeper.groups, strict=False):
        noise = trainer.generator.noise(8, torch.Generator().manual_seed(1))
        conditions = trainer.generator.encode_prompts([record.prompt])
        with torch.no_grad():
            tuned = trainer.generator.sample(noise, conditions)
            with trainer.generator.reference():
                base = trainer.generator.sample(noise, conditions)
        way = group.positives.latents_SChw.mean(dim=0) - group.negatives.latents_SChw.mean(dim=0)
        assert ((tuned - base) * way).flatten(1).sum(dim=1).min() > 0
    assert not any(name.startswith("reward") for line in lines for name in line)
    assert lines[0]["groups_dropped"] == lines[0]["groups_tied"] == 0


def test_a_restored_offline_state_continues_bit_for_bit(make_offline: MakeTrainer) -> None:
    offline = {"images_per_side": 1, "neighbours": 2, "own_samples": "add"}
    whole, first, second = (make_offline(offline) for _ in range(3))
    expected = [untimed(whole.run_step(RECORDS)) for _ in range(4)]
    assert [untimed(first.run_step(RECORDS)) for _ in range(2)] == expected[:2]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert [untimed(second.run_step(RECORDS)) for _ in range(2)] == expected[2:]


@pytest.mark.parametrize("own_samples", ["none", "add", "instead"])
def test_chunks_have_the_gradient_of_the_whole_offline(make_offline: MakeTrainer, own_samples: str) -> None:
    gradients = []
    for chunk_size in (None, 4):
        trainer = make_offline({"own_samples": own_samples}, chunk_size=chunk_size)
        torch.manual_seed(1)
        for parameter in trainer.parameters:
            torch.nn.init.normal_(parameter, std=0.1)
        assert trainer.run_step(RECORDS)["loss"] > 0
        gradients.append([parameter.grad.clone() for parameter in trainer.parameters])
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() <= 1e-3 * one.norm()


class KeepSupports(DrPOObjective):
    """Keeps the groups that it gets."""

    def __init__(self) -> None:
        super().__init__({"radii": [0.5]})
        self.groups: list[Group] = []

    def loss(self, group: Group) -> Any:
        self.groups.append(group)
        return super().loss(group)


@pytest.mark.parametrize("settings", [{}, {"variant": "released", "space": "features"}])
def test_dpo_learns_the_given_preferences(make_offline: MakeTrainer, settings: dict[str, Any]) -> None:
    trainer = make_offline({"neighbours": 1}, load_objective("dpo", {"beta": 1, **settings}))
    lines = [trainer.run_step(RECORDS) for _ in range(3)]
    assert lines[0]["loss"] == pytest.approx(math.log(2), rel=1e-4)  # the adapter still changes nothing
    assert lines[2]["loss"] < lines[0]["loss"]
    assert lines[2]["margin"] > 0


def test_own_samples_are_the_candidates_with_the_largest_and_smallest_margins(make_offline: MakeTrainer) -> None:
    keeper = {name: KeepSupports() for name in ("none", "add", "instead")}
    for name, objective in keeper.items():
        make_offline({"own_samples": name, "own_share": 0.34}, objective=objective).run_step(RECORDS[:1])
    none, add, instead = (keeper[name].groups[0] for name in ("none", "add", "instead"))
    assert [len(group.positives.weights_S) for group in (none, add, instead)] == [2, 4, 2]  # 2 of 6 own ones
    own = Supports(torch.empty(0), none.features, torch.ones(6))
    margins_K = preference_margins(own, none.positives, none.negatives)
    best, worst = margins_K.topk(2).indices, (-margins_K).topk(2).indices
    for key, tokens in none.features.items():
        assert torch.equal(instead.positives.features[key], tokens[best])
        assert set(map(tuple, instead.negatives.features[key].flatten(1).tolist())) == set(
            map(tuple, tokens[worst].flatten(1).tolist())
        )
        assert torch.equal(add.positives.features[key][2:], tokens[best])


def test_margins_are_differences_of_mean_distances() -> None:
    """By hand: on a line, at 0 and 4, with the chosen images at 1 and 3 (weights 3 to 1) and the rejected one at 4."""
    candidates = Supports(torch.empty(0), {"x": torch.tensor([[[0.0]], [[4.0]]])}, torch.ones(2))
    chosen = Supports(torch.empty(0), {"x": torch.tensor([[[1.0]], [[3.0]]])}, torch.tensor([3.0, 1.0]))
    rejected = Supports(torch.empty(0), {"x": torch.tensor([[[4.0]]])}, torch.ones(1))
    # distances to chosen 1.5 and 2.5, to rejected 4 and 0; their mean over all is 2
    torch.testing.assert_close(preference_margins(candidates, chosen, rejected), torch.tensor([2.5 / 2, -2.5 / 2]))


# -- neighbours -------------------------------------------------------------------------------------------------------


def test_neighbours_are_the_nearest_by_text_and_join_with_their_similarity(
    make_offline: MakeTrainer, generator: SDTurboGenerator
) -> None:
    keeper = KeepSupports()
    line = make_offline({"neighbours": 3}, objective=keeper).run_step(RECORDS[:1])
    found = Neighbours(list(PROMPTS), generator, 3).of(PROMPTS[0])
    vectors = torch.cat([generator.encode_prompts([prompt]).text_NTD.mean(dim=1) for prompt in PROMPTS]).double()
    vectors = vectors - vectors.mean(dim=0)
    cosines = {
        prompt: float(vectors[0] @ vector / vectors[0].norm() / vector.norm())
        for prompt, vector in zip(PROMPTS[1:], vectors[1:], strict=True)
    }
    expected = sorted(((value, prompt) for prompt, value in cosines.items() if value > 0), reverse=True)
    assert [prompt for prompt, _ in found] == [prompt for _, prompt in expected]
    assert [value for _, value in found] == pytest.approx([value for value, _ in expected], abs=1e-5)
    weights = keeper.groups[0].positives.weights_S.tolist()
    assert weights == pytest.approx([1.0, 1.0, *(value for value, _ in expected for _ in range(2))], abs=1e-5)
    assert line["neighbour_weight"] == pytest.approx(sum(value for value, _ in expected), abs=1e-5)


def test_a_single_prompt_has_no_neighbours(generator: SDTurboGenerator) -> None:
    assert Neighbours(["a red circle"], generator, 4).of("a red circle") == []


def test_of_many_images_some_are_drawn_anew_in_each_step(make_offline: MakeTrainer) -> None:
    keeper = KeepSupports()
    trainer = make_offline({"images_per_side": 1}, objective=keeper)
    for _ in range(12):
        trainer.run_step(RECORDS[:1])
    drawn = {group.positives.latents_SChw.sum().item() for group in keeper.groups}
    assert len(drawn) == 2
    assert all(len(group.negatives.weights_S) == 1 for group in keeper.groups)


def test_the_index_of_a_cache_may_hold_any_text(tmp_path: Path) -> None:
    cache = LatentCache(tmp_path / "cache")
    prompt = 'a "cat"\u2028\n\N{LARGE RED CIRCLE}'
    cache.write("00000-0000000.safetensors", torch.arange(2.0).reshape(2, 1, 1, 1), [(prompt, [0], [1, 1])])
    cache.finish()
    images = cache.read_index()[prompt]
    assert cache.read([*images.chosen, *images.rejected]).flatten().tolist() == [0.0, 1.0, 1.0]


def test_a_worker_refuses_to_train_on_an_evaluation_prompt(
    generator: SDTurboGenerator, table: Path, tmp_path: Path
) -> None:
    """It is the first to know the prompts of preferences on the hub."""
    config = offline_config(tmp_path, path=str(table))

    def begin(*held_out: str) -> tuple[Any, PromptOrder]:
        with ExitStack() as stack:
            return supervise(config, generator, lambda: pytest.fail("nothing ranks"), stack, held_out)

    with pytest.raises(ConfigError, match="1 of the 2 evaluation prompts are also training"):
        begin("another", PROMPTS[1].upper())
    supervision, order = begin("another")
    assert isinstance(supervision, OfflineSupervision)
    assert {record.prompt for record in order.take(0, len(PROMPTS))} == set(PROMPTS)


def test_the_driver_of_a_run_sees_how_much_is_encoded(tmp_path: Path) -> None:
    worker, driver = EncodingCount(tmp_path), EncodingCount(tmp_path)
    assert driver.read_if_new() is None
    worker.write(256)
    assert [driver.read_if_new(), driver.read_if_new()] == [256, None]
    worker.write(512)
    assert driver.read_if_new() == 512
    worker.remove()
    assert driver.read_if_new() is None
