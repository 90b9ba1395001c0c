"""What it saves to read a picture once for all its questions: `soft_tifa` against one pass of the network per question.

The network is a random Qwen3-VL of a size that a CPU can run, so only the ratio means something.

Launch: python tests/bench/bench_questions.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.images import picture
from support.tiny.qwen3_vl import Sizes, write_qwen3_vl

from drpo_rewards.rewards.shared.qwen3_vl import Qwen3VL
from drpo_rewards.rewards.vlm.packed import Question, ask

SIZES = Sizes(
    vision=192, vision_mlp=512, vision_layers=6, text=256, text_mlp=768, heads=8, kv_heads=2, head=32, layers=8
)
PICTURES, QUESTIONS = 4, 8


def measure(work: Callable[[], object]) -> float:
    work()  # warm
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        vlm = Qwen3VL(str(write_qwen3_vl(Path(folder), sizes=SIZES)), device="cpu")
    images = [picture(512, 512, seed=seed) for seed in range(PICTURES)]
    questions = [
        Question(f"How many dogs of kind {number} are in the image? Answer in one word.", ((ord("t"),),))
        for number in range(QUESTIONS)
    ]
    packed_s = measure(lambda: ask(vlm, images, [questions] * PICTURES))
    each_s = measure(lambda: [ask(vlm, images, [[question]] * PICTURES) for question in questions])
    print(f"{QUESTIONS} questions about {PICTURES} pictures of 512 x 512:")
    print(f"  one pass for all     {packed_s:.2f} s")
    print(f"  one pass a question  {each_s:.2f} s, {each_s / packed_s:.1f} times as long")
    assert packed_s < each_s / 2


if __name__ == "__main__":
    main()
