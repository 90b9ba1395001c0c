"""Model files that are missing, damaged, or of another model cause a WeightsError that names the file."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny.clip import write_clip
from torch import nn

from drpo_rewards import rewards
from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.files.weights import load_strictly, locate, read_tensors


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("this file ran code",))


def test_a_file_is_found_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b.bin").touch()
    assert locate(str(tmp_path), "a.bin", "b.bin") == tmp_path / "b.bin"
    with pytest.raises(WeightsError, match=r"no a\.bin or c\.bin in the folder"):
        locate(str(tmp_path), "a.bin", "c.bin")


def test_a_source_that_is_neither_folder_nor_hub_id() -> None:
    with pytest.raises(WeightsError, match="neither a folder here nor an id"):
        locate("/no/such/folder", "model.safetensors")


def test_offline_the_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"model\.safetensors of nobody/nothing is not in the hub's cache"):
        locate("nobody/nothing", "model.safetensors")


def test_torch_files_cannot_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Runs()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"weight": Runs()}))
    for name in ("a.pth", "b.pth"):
        with pytest.raises(WeightsError, match=name):
            read_tensors(tmp_path / name)
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1, 2], {"weight": 3}, {"state_dict": {"weight": torch.zeros(1)}}])
def test_files_without_tensors_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="different file"):
        read_tensors(tmp_path / "a.pt")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.pt", "b.safetensors"):
        (tmp_path / name).write_bytes(b"<html>not found</html>")
        with pytest.raises(WeightsError, match=name):
            read_tensors(tmp_path / name)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"weight": torch.zeros(3, 2)}, r"1 missing \(bias\)"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "scale": torch.zeros(1)}, r"1 unexpected \(scale\)"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(3)}, r"1 of another shape \(weight \[2, 3\], not \[3, 2\]"),
    ],
)
def test_keys_that_do_not_fit(tensors: dict[str, torch.Tensor], reason: str) -> None:
    with pytest.raises(WeightsError, match=f"file.pt does not fit the model; keys: {reason}"):
        load_strictly(nn.Linear(2, 3), tensors, Path("file.pt"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda keys: keys.pop("visual_projection.weight"), r"1 missing \(visual_projection.weight\)"),
        (lambda keys: keys.update(rm_head=torch.zeros(1)), r"1 unexpected \(rm_head\)"),
        (lambda keys: keys.update(logit_scale=torch.zeros(2)), r"1 of another shape \(logit_scale"),
        (lambda keys: [keys.pop(name) for name in list(keys) if "text_model" in name], "missing"),
    ],
)
def test_a_pretrained_folder_is_loaded_as_strictly(tmp_path: Path, change: object, reason: str) -> None:
    file = write_clip(tmp_path) / "model.safetensors"
    keys = load_file(file)
    change(keys)  # type: ignore[operator]
    save_file(keys, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=reason) as caught:
        rewards.load("pickscore", model=str(tmp_path), device="cpu")
    assert str(file) in str(caught.value)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (write_clip(tmp_path) / "vocab.json").unlink()
    with pytest.raises(WeightsError, match=r"no vocab\.json in the folder"):
        rewards.load("pickscore", model=str(tmp_path), device="cpu")


def test_torch_weights_are_loaded_too(tmp_path: Path) -> None:
    file = write_clip(tmp_path) / "model.safetensors"
    torch.save(load_file(file), tmp_path / "pytorch_model.bin")
    file.unlink()
    assert rewards.load("pickscore", model=str(tmp_path), device="cpu").version
