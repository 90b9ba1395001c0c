"""The optimizer step with a real tiny generator and a ranker in this process."""

from __future__ import annotations

import io

import pytest
import torch
from support.rewards import FailsOn

from drpo.data.prompts import PromptRecord
from drpo.errors import TrainingStoppedError
from drpo.method.features import FeatureContext
from drpo.method.objectives import load_objective
from drpo.method.objectives.base import Needs, ObjectiveResult
from drpo.training.views import make_view


def gradients(trainer) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in trainer.parameters]


def steps(trainer, records, count):
    return [trainer.run_step(records) for _ in range(count)]


def without_times(metrics):
    """The metrics of a step that do not depend on time."""
    return {name: value for name, value in metrics.items() if name not in ("seconds", "images_per_s")}


def same_weights(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))


def test_the_reward_rises(make_trainer, records):
    trainer = make_trainer()
    lines = steps(trainer, records, 8)
    assert lines[-1]["reward/reward"] > lines[0]["reward/reward"] + 1
    assert all(line["reward_std/reward"] > 0 for line in lines)
    assert all(line["combined_mean"] == pytest.approx(0, abs=1e-9) for line in lines), "a mean of z-scores"
    assert all(line["combined_std"] == pytest.approx(1) for line in lines), "a single reward agrees with itself"
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[0]["images"] == 18
    assert lines[0]["groups"] == 3
    assert 0 <= lines[0]["metric/reward/red_wins"] <= 1


@pytest.mark.parametrize("settings", [{"pipeline": False}, {"groups_in_flight": 1}, {"groups_in_flight": 8}])
def test_the_pipeline_changes_only_the_time(make_trainer, records, settings):
    usual, other = make_trainer(), make_trainer(**settings)
    assert [without_times(line) for line in steps(usual, records, 3)] == [
        without_times(line) for line in steps(other, records, 3)
    ]
    assert same_weights(usual, other)


def test_chunks_have_the_gradient_of_the_whole(make_trainer, records):
    whole, chunked = make_trainer(), make_trainer(chunk_size=4)
    for trainer in (whole, chunked):
        torch.manual_seed(1)
        for parameter in trainer.parameters:  # the second factor of a fresh adapter is 0, and half of the gradient too
            torch.nn.init.normal_(parameter, std=0.1)
        trainer.run_step(records)
    for one, other in zip(gradients(whole), gradients(chunked), strict=True):
        assert (one - other).norm() < 1e-3 * one.norm()


def test_the_gradient_is_the_mean_over_the_groups_that_took_part(make_trainer, records):
    """Gradients of single groups, averaged by hand, against the step. The mean leaves out failed and tied groups."""
    trainer = make_trainer(reward=FailsOn())
    good, green, blue = records
    line = trainer.run_step([good, green, blue, PromptRecord("a red square")])
    assert (line["groups"], line["groups_dropped"], line["groups_tied"]) == (4, 1, 1)

    single = make_trainer(reward=FailsOn())
    single.runner.accumulate(0, [(0, good), (3, PromptRecord("a red square"))])
    norm = torch.sqrt(sum((p.grad / 2).square().sum() for p in single.parameters))
    for parameter, gradient in zip(single.parameters, gradients(trainer), strict=True):
        torch.testing.assert_close(parameter.grad / 2 * min(1.0, 1.0 / norm.item()), gradient)


def test_a_failed_group_gets_no_score(make_trainer):
    trainer = make_trainer(reward=FailsOn(), max_failed_groups=2)
    before = [parameter.clone() for parameter in trainer.parameters]
    line = trainer.run_step([PromptRecord("blue"), PromptRecord("blue square")])
    assert line["combined_mean"] is None
    assert "reward/reward" not in line
    assert line["loss"] is None
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.parameters, strict=True))
    trainer.check_failures()
    trainer.run_step([PromptRecord("blue")])
    with pytest.raises(TrainingStoppedError, match=r"(?s)max_failed_groups.*no score for blue"):
        trainer.check_failures()


def test_a_gradient_that_is_not_finite_changes_nothing(make_trainer, records):
    trainer = make_trainer()
    trainer.run_step(records)
    trainer.parameters[0].register_hook(lambda gradient: gradient * float("inf"))
    before = trainer.parameters[1].clone()
    with pytest.raises(TrainingStoppedError, match="step 2"):
        trainer.run_step(records)
    assert torch.equal(trainer.parameters[1], before)
    assert trainer.step == 1


def test_a_whole_step_of_failed_groups_is_always_allowed(make_trainer, records):
    trainer = make_trainer(reward=FailsOn(), max_failed_groups=0.1)  # 3 groups per step
    blue = [PromptRecord("blue")] * 3
    trainer.run_step(blue)
    trainer.check_failures()
    trainer.run_step(blue)
    with pytest.raises(TrainingStoppedError):
        trainer.check_failures()


def test_a_restored_state_continues_bit_for_bit(make_trainer, records):
    uninterrupted, first, second = make_trainer(), make_trainer(), make_trainer()
    expected = [without_times(line) for line in steps(uninterrupted, records, 4)]
    assert [without_times(line) for line in steps(first, records, 2)] == expected[:2]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert [without_times(line) for line in steps(second, records, 2)] == expected[2:]
    assert same_weights(uninterrupted, second)


class DecodedPixels:
    """A feature map over decoded images."""

    def of_images(self, images_N3HW, context):
        return {"pixels": torch.nn.functional.avg_pool2d(images_N3HW, 16).flatten(2).transpose(1, 2)}


def test_a_feature_map_may_take_images(make_trainer, records):
    whole = make_trainer(feature_map=DecodedPixels())
    chunked = make_trainer(feature_map=DecodedPixels(), chunk_size=4)
    for trainer in (whole, chunked):
        trainer.run_step(records)
    assert sum(gradient.norm() for gradient in gradients(whole)) > 0
    for one, other in zip(gradients(whole), gradients(chunked), strict=True):
        assert (one - other).norm() <= 3e-3 * one.norm()  # rounding differs between processors


def test_the_graph_of_a_decoded_image_is_not_kept(make_trainer):
    """Autograd keeps less than a tenth of what it keeps otherwise; the gradient is the same."""
    generator = make_trainer().generator
    context = FeatureContext(generator.encode_prompts(["a red circle"]))
    sizes, found = {}, {}
    for again in (False, True):
        leaf = torch.randn(4, *generator.latent_shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.nbytes) or x, lambda x: x):  # noqa: B023
            view = make_view(generator, DecodedPixels(), decode_again=again)
            features = view.features(leaf, context)["pixels"]
        sizes[again] = sum(kept)
        (found[again],) = torch.autograd.grad(features.square().sum(), leaf)
    assert 0 < sizes[True] < 0.1 * sizes[False]
    torch.testing.assert_close(found[True], found[False])


class PullToReference:
    """An objective over latents that ranks nothing: the mean squared distance to the references."""

    needs = Needs(latents=True, reference_latents=True, ranking=False)

    def loss(self, group):
        assert (group.features, group.reference_features, group.pairs_M2, group.scores_K) == (None, None, None, None)
        return ObjectiveResult((group.latents_KChw - group.reference_KChw).square().mean())


def test_only_what_the_objective_needs_is_computed(make_trainer, records):
    """Without features no map is asked, without a ranking no ranker; chunks still have the whole gradient."""
    whole = make_trainer(objective=PullToReference(), feature_map=NeverAsked())
    chunked = make_trainer(objective=PullToReference(), feature_map=NeverAsked(), chunk_size=4)
    for trainer in (whole, chunked):
        torch.manual_seed(1)
        for parameter in trainer.parameters:
            torch.nn.init.normal_(parameter, std=0.1)
        line = trainer.run_step(records)
        assert line["loss"] > 0
        assert "reward/reward" not in line
    for one, other in zip(gradients(whole), gradients(chunked), strict=True):
        assert (one - other).norm() <= 1e-3 * one.norm()


class NeverAsked:
    """A feature map that may not be used."""

    def of_latents(self, latents_NChw, context):
        raise AssertionError("nobody needs features")


def test_without_a_weight_no_reference_is_generated(make_trainer, records, monkeypatch):
    for weight, expected in ((0.2, True), (0.0, False)):
        trainer = make_trainer(objective=load_objective("drpo", {"radii": [0.5], "reference_weight": weight}))
        switched_off = []
        reference = trainer.generator.reference
        monkeypatch.setattr(trainer.generator, "reference", lambda: switched_off.append(1) or reference())  # noqa: B023
        line = trainer.run_step(records)
        assert bool(switched_off) is expected
        assert ("reference_distance" in line) is expected
