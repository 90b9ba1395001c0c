"""A server as many would write it without this project: FastAPI, one worker, each request scored separately.

Launch: python tests/bench/plain_server.py PORT (bench_transports.py starts it)

The endpoint calls the model in its own process, as in most examples. It takes the same multipart parts with raw pixels
as the ranking service, so that only the serving differs.
"""

from __future__ import annotations

import sys

import numpy as np
import uvicorn
from bench_transports import REWARDS
from fastapi import FastAPI, UploadFile

from drpo_rewards.rewards.base import ScoreItem

app = FastAPI()
rewards = {name: reward() for name, reward in REWARDS.items()}


@app.post("/score/{name}")
async def score(name: str, images: list[UploadFile]) -> list[float]:
    pixels = [np.frombuffer(await image.read(), dtype=np.uint8) for image in images]
    side = int((len(pixels[0]) // 3) ** 0.5)
    items = [ScoreItem(each.reshape(side, side, 3), "") for each in pixels]
    return [score.value for score in rewards[name].score(items)]


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
