"""The rewards' throughput and memory, and the batch size that is best, in the order of their importance."""

from __future__ import annotations

import gc
import io
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from bench.gpu import sizes
from bench.gpu.checkpoints import PROMPT, fill_at_random, judge_words, load_hpsv3, once, pickscore_folder
from bench.gpu.measure import Bench, out_of_memory, peak_gb, reset_peak
from PIL import Image
from support.tiny import clip, hpsv2, image_reward, mask2former, qwen3_vl
from torch import nn

from drpo_rewards import rewards
from drpo_rewards.client.load import draw_groups
from drpo_rewards.rewards.base import PairItem
from drpo_rewards.rewards.throughput import measure

SIDE = 512
SPEC = {"tag": "colors", "include": [{"class": "person", "count": 1, "color": "red"}]}


@dataclass(frozen=True)
class Case:
    """One reward: how it is loaded, its batch sizes, and its limit in seconds, loading included."""

    name: str
    load: Callable[[Bench], Any]
    batches: tuple[int, ...]
    limit_s: float


class LimitReachedError(Exception):
    """A reward took too long."""


def run(bench: Bench) -> None:
    """Measures one reward after the other. One that fails or takes too long does not stop the others."""
    pictures = [picture for group in draw_groups(4, 4, 64 if bench.small else SIDE) for picture in group]
    files = [_to_jpeg(picture) for picture in pictures]
    for case in CASES:
        started = time.perf_counter()
        try:
            with limited(case.limit_s):
                _measure(bench, case, files, pictures)
        except Exception as error:  # the reason is a row of the report
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            bench.record.row("ended early", reward=case.name, seconds=time.perf_counter() - started, reason=reason)
            print(f"{case.name}: {type(error).__name__}: {error}")
        gc.collect()
        reset_peak()
    bench.record.note(
        "Throughput includes preparation on the CPU, which overlaps with the network, but not decoding. HPSv3 has "
        "only the tokens that its question needs: embeddings of other words, 1.1 GB, are missing. With random weights "
        "Mask2Former finds nothing, so no colour is classified."
    )


def _measure(bench: Bench, case: Case, files: list[bytes], pictures: list[Any]) -> None:
    reset_peak()
    started = time.perf_counter()
    reward = case.load(bench)
    loaded_s = time.perf_counter() - started
    weights_gb = torch.cuda.memory_allocated() / 1e9 if torch.cuda.is_available() else None
    best: tuple[float, int] = (0.0, 0)
    for batch in case.batches[:2] if bench.small else case.batches:
        reset_peak()
        try:
            rate = _rate(reward, case.name, files, pictures, batch, 0.05 if bench.small else 1.0)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            bench.record.row("batch sizes", reward=case.name, batch=batch, images_per_s="does not fit into memory")
            break
        bench.record.row("batch sizes", reward=case.name, batch=batch, **rate, peak_GB=peak_gb())
        best = max(best, (rate["images_per_s"], batch))
    bench.record.row(
        "rewards",
        reward=case.name,
        best_batch=best[1],
        images_per_s=best[0],
        weights_GB=weights_gb,
        seconds_to_load=loaded_s,
    )


def _rate(
    reward: Any, name: str, files: list[bytes], pictures: list[Any], batch: int, seconds: float
) -> dict[str, float]:
    if not hasattr(reward, "compare"):
        measured = measure(name, reward, files, PROMPT, SPEC, batch, seconds)
        return {
            "images_per_s": measured.images_per_s,
            "prepare_ms": measured.prepare_ms,
            "network_ms": measured.model_ms,
        }
    turns = [PairItem(pictures[index % 16], pictures[(index + 1) % 16], PROMPT) for index in range(batch)]
    reward.compare(turns)
    compared, started = 0, time.perf_counter()
    while not compared or time.perf_counter() - started < seconds:
        reward.compare(turns)
        compared += batch
    elapsed = time.perf_counter() - started
    return {"images_per_s": 2 * compared / elapsed, "pairs_per_s": compared / elapsed}


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises a LimitReachedError in this block after `seconds`, as soon as Python runs again."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise LimitReachedError(f"it took more than its limit of {seconds:.0f} s")

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def _to_jpeg(picture: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG")
    return buffer.getvalue()


def _load_pickscore(bench: Bench) -> Any:
    return rewards.load("pickscore", str(pickscore_folder(bench)))


def _load_hpsv2(bench: Bench) -> Any:
    chosen = hpsv2.TINY if bench.small else sizes.HPSV2
    folder = once(bench.scratch / "hpsv2", partial(hpsv2.write_hpsv2, sizes=chosen, device=bench.device))
    return rewards.load("hpsv2", str(folder))


def _load_image_reward(bench: Bench) -> Any:
    chosen = image_reward.TINY if bench.small else sizes.IMAGE_REWARD
    write = partial(image_reward.write_image_reward, sizes=chosen, device=bench.device)
    return rewards.load("image_reward", str(once(bench.scratch / "image_reward", write)))


def _load_geneval(bench: Bench) -> Any:
    def write(folder: Path) -> None:
        if bench.small:
            mask2former.write_mask2former(folder)
        else:
            _write_mask2former(folder, bench.device)
        chosen = clip.ClipSizes() if bench.small else sizes.CLIP_L
        clip.write_clip(folder / "clip", sizes=chosen, device="meta")

    reward: Any = rewards.load("geneval", str(once(bench.scratch / "geneval", write)))
    fill_at_random(reward.color_classifier.clip.model)
    return reward


def _write_mask2former(folder: Path, device: str) -> None:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = SwinConfig(**sizes.MASK2FORMER["backbone"], out_features=stages)
    config = Mask2FormerConfig(backbone_config=backbone, **sizes.MASK2FORMER["model"])
    with torch.device(device):
        model = Mask2FormerForUniversalSegmentation(config)
    model.save_pretrained(folder)
    kind = {"do_normalize": True, "do_resize": True, "feature_extractor_type": "MaskFormerFeatureExtractor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(kind))


def _load_judge(bench: Bench, name: str) -> Any:
    chosen = qwen3_vl.TINY if bench.small else getattr(sizes, f"QWEN3_VL_{name}")
    words = judge_words()
    if bench.small:  # as many rows as tokens
        from dataclasses import replace

        chosen = replace(chosen, words=chosen.words + len(words))
    sharded = name == "8B"
    write = partial(qwen3_vl.write_qwen3_vl, sharded=sharded, words=words, sizes=chosen, device="meta")
    judge: Any = rewards.load("judge", str(once(bench.scratch / f"qwen3_vl_{name}", write)))
    network: nn.Module = judge._backend.network
    fill_at_random(network)
    return judge


CASES = (
    Case("pickscore", _load_pickscore, (8, 1, 32, 64, 128), 30),
    Case("hpsv2", _load_hpsv2, (8, 1, 32, 64, 128), 30),
    Case("image_reward", _load_image_reward, (8, 1, 32, 64), 25),
    Case("hpsv3", load_hpsv3, (8, 1, 16, 32), 45),
    Case("geneval", _load_geneval, (8, 1, 16), 30),
    Case("judge, Qwen3-VL 2B", partial(_load_judge, name="2B"), (8, 1, 16), 30),
    Case("judge, Qwen3-VL 8B", partial(_load_judge, name="8B"), (8, 1, 16), 45),
)
