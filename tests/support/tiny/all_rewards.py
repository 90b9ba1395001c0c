"""All tiny checkpoints that `deploy/serve/cpu-tiny.yaml` names.

Launch: PYTHONPATH=tests python -m support.tiny.all_rewards tiny-weights
"""

from __future__ import annotations

import sys
from pathlib import Path

from support.tiny.aesthetic import write_aesthetic
from support.tiny.clip import write_clip
from support.tiny.hpsv2 import write_hpsv2
from support.tiny.hpsv3 import write_hpsv3
from support.tiny.image_reward import write_image_reward
from support.tiny.mask2former import write_mask2former
from support.tiny.qwen3_vl import write_qwen3_vl


def write_all(folder: Path) -> None:
    write_clip(folder / "clip")
    write_aesthetic(folder / "aesthetic")
    write_hpsv2(folder / "hpsv2")
    write_hpsv3(folder / "hpsv3")
    write_image_reward(folder / "image_reward")
    write_clip(write_mask2former(folder / "geneval") / "clip")
    write_qwen3_vl(folder / "judge")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
