"""`transformers serve` as a process, with or without torchvision.

Launch: python transformers_serve.py serve FOLDER ...

`transformers serve` makes a model's processor with AutoProcessor. The processor of Qwen3-VL has a part for videos,
which needs torchvision. Without torchvision, this file runs the same command with a processor for images only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx


@contextmanager
def running(model: Path, port: int, log: Path) -> Iterator[str]:
    """Starts the server, and gives its base URL when it answers."""
    command = [sys.executable, __file__, "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--dtype", "float32"], stdout=file, stderr=file, env=environment
        )
    try:
        deadline = time.monotonic() + 180
        while not _answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").is_success
    except httpx.TransportError:
        return False


def _load_without_video(self: Any, model: str, gguf_file: str | None = None) -> Any:
    from transformers import AutoTokenizer, Qwen2VLImageProcessorPil, Qwen3VLProcessor

    class PictureProcessor(Qwen3VLProcessor):
        def check_argument_for_proper_class(self, name: str, value: Any) -> Any:
            return None if name == "video_processor" else super().check_argument_for_proper_class(name, value)

    folder = model.partition("@")[0]
    template = json.loads((Path(folder) / "chat_template.json").read_text())["chat_template"]
    pictures, words = Qwen2VLImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return PictureProcessor(pictures, words, chat_template=template)


if __name__ == "__main__":
    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.transformers import main
    from transformers.utils import is_torchvision_available

    if not is_torchvision_available():
        ModelManager._load_processor = _load_without_video  # type: ignore[method-assign]
    main()
