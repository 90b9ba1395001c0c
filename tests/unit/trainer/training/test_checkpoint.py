"""Checkpoints on disk: whole ones, damaged ones, those of other versions, and a disk that is full."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from drpo.config import LoraConfig
from drpo.errors import ConfigError, ModelLoadError, StorageError
from drpo.generators.base import Adapter
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.training.checkpoint import (
    checkpoints,
    find_newest_checkpoint,
    publish_adapter,
    read_checkpoint,
    write_checkpoint,
)
from drpo.training.metrics import MetricsLog, read_metrics
from drpo.training.version import PROJECT_VERSION

ADAPTER_FILE = "adapter/pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def adapter(tiny: Path) -> Adapter:
    return SDTurboGenerator.load(tiny, lora=LoraConfig(rank=4)).adapter


@pytest.fixture
def folder(adapter: Adapter, tmp_path: Path) -> Path:
    """Checkpoints of the steps 2 and 3."""
    for step in (1, 2, 3):
        state = {"step": step, "weights": torch.full((100,), float(step))}
        write_checkpoint(tmp_path, state, adapter, keep=2, settings={"lora.rank": 4})
    return tmp_path


def test_checkpoints_are_whole_and_old_ones_are_deleted(folder, adapter):
    assert [path.name for path in checkpoints(folder)] == ["step-000002", "step-000003"]
    newest = find_newest_checkpoint(folder)
    assert newest.path == folder / "step-000003"
    assert newest.left_out == ()
    assert newest.manifest is not None
    assert (newest.manifest.version, newest.manifest.settings) == (PROJECT_VERSION, {"lora.rank": 4})
    assert read_checkpoint(newest.path)["weights"].tolist() == [3.0] * 100
    assert (newest.path / ADAPTER_FILE).is_file()

    # step 3 runs again; nothing else is left behind
    write_checkpoint(folder, read_checkpoint(newest.path), adapter, keep=2)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000002", "step-000003"]
    assert find_newest_checkpoint(folder).left_out == ()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def with_manifest(**changes: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "file", "problem"),
    [
        (empty, "state.pt", "state.pt has 0 of"),
        (cut, "state.pt", "state.pt has"),
        (change_a_byte, "state.pt", "state.pt has other content"),
        (Path.unlink, "state.pt", "state.pt is missing"),
        (cut, ADAPTER_FILE, f"{ADAPTER_FILE} has"),
        (Path.unlink, ADAPTER_FILE, f"{ADAPTER_FILE} is missing"),
        (empty, "manifest.json", "manifest.json is damaged"),
        (lambda path: path.write_text("[1]"), "manifest.json", "manifest.json is damaged"),
        (lambda path: path.write_text("[" * 100_000), "manifest.json", "manifest.json is damaged"),
        (with_manifest(files=[1]), "manifest.json", "manifest.json is damaged"),
        (with_manifest(files={"state.pt": 3}), "manifest.json", "manifest.json is damaged"),
        (with_manifest(settings=3), "manifest.json", "manifest.json is damaged"),
        (with_manifest(format="x"), "manifest.json", "manifest.json is damaged"),
        (lambda path: shutil.rmtree(path.parent) or path.parent.mkdir(), "state.pt", "cannot read the checkpoint"),
    ],
)
def test_a_damaged_checkpoint_is_left_out(folder: Path, damage: Callable[[Path], object], file: str, problem: str):
    damage(folder / "step-000003" / file)
    newest = find_newest_checkpoint(folder)
    assert newest.path == folder / "step-000002"
    assert len(newest.left_out) == 1
    assert "step-000003" in newest.left_out[0]
    assert problem in newest.left_out[0]

    damage(folder / "step-000002" / file)
    with pytest.raises(ModelLoadError, match=r"(?s)no checkpoint in .* is whole.*step-000003.*step-000002.*new run"):
        find_newest_checkpoint(folder)


def test_a_damaged_newer_checkpoint_does_not_displace_whole_ones(folder, adapter):
    cut(folder / "step-000003" / "state.pt")
    shutil.move(folder / "step-000003", folder / "step-000050")
    for step in (4, 5, 6):
        write_checkpoint(folder, {"step": step}, adapter, keep=1)
    assert [path.name for path in checkpoints(folder)] == ["step-000006", "step-000050"]
    assert find_newest_checkpoint(folder).path == folder / "step-000006"


def test_checkpoints_that_cannot_be_read_are_not_none(tmp_path: Path):
    assert find_newest_checkpoint(tmp_path / "checkpoints").path is None
    (tmp_path / "checkpoints").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"the checkpoints in .* cannot be read: Not a directory"):
        find_newest_checkpoint(tmp_path / "checkpoints")


def test_checkpoints_of_other_versions(folder):
    newest = folder / "step-000003"
    manifest = json.loads((newest / "manifest.json").read_text())
    (newest / "manifest.json").write_text(json.dumps({**manifest, "drpo": "9.1", "format": 9}))
    with pytest.raises(ConfigError, match=rf"written by drpo 9\.1 \(format 9\); this is drpo {PROJECT_VERSION}"):
        find_newest_checkpoint(folder)

    (newest / "manifest.json").unlink()  # as before checkpoints had one
    assert find_newest_checkpoint(folder).path == newest
    assert find_newest_checkpoint(folder).manifest is None
    cut(newest / "state.pt")
    assert find_newest_checkpoint(folder).path == folder / "step-000002"


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Within this block no file of this process grows beyond `size` bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 35_000])  # the adapter does not fit; the adapter fits, but not the state
def test_a_full_disk_leaves_the_last_whole_state(folder: Path, adapter: Adapter, size: int):
    publish_adapter(adapter, folder / "adapter")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len((folder / "adapter" / "pytorch_lora_weights.safetensors").read_bytes()) < 35_000
    state = {"step": 4, "weights": torch.zeros(50_000)}
    with files_limited_to(size), pytest.raises(StorageError, match=r"cannot write .*: .*(F|f)ile too large"):
        write_checkpoint(folder, state, adapter, keep=1)
    with files_limited_to(100), pytest.raises(StorageError, match="cannot write"):
        publish_adapter(adapter, folder / "adapter")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's writer
def test_a_full_disk_while_metrics_are_written(tmp_path):
    log = MetricsLog(tmp_path)
    log.write({"step": 1, "loss": 0.5})
    with files_limited_to((tmp_path / "metrics.jsonl").stat().st_size + 5):
        with pytest.raises(StorageError, match=r"cannot write .*metrics\.jsonl"):
            log.write({"step": 2, "loss": 0.25})
        log.close()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_what_is_no_step_is_skipped_in_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    no_steps = (
        b"\x00\x00\xff",
        b"[2]",
        b'{"loss": 1}',
        b'{"step": true}',
        b'{"step": 4, "time_s": "late"}',
        b"[" * 100_000,
    )
    path.write_bytes(b'{"step": 1}\n' + b"\n".join(no_steps) + b'\n{"step": 2}\n{"step": 3, "lo')
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    log = MetricsLog(tmp_path, after=1)
    log.write({"step": 2, "loss": 0.5})
    log.close()
    assert path.read_text() == '{"step": 1}\n{"step": 2, "loss": 0.5}\n'
