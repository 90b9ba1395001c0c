"""`drpo export`: every form draws the run's picture again, and what cannot be exported is told before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drpo.cli import app
from drpo.cli.export import _choose_out
from drpo.generators.export import ExportFormat

FORMS = ExportFormat.__args__


def call(*words: str | Path) -> int:
    """Calls `drpo`, and returns its exit status."""
    with pytest.raises(SystemExit) as ended:
        app([str(word) for word in words])
    return ended.value.code or 0


def draw(folder: Path, *options: str | Path) -> np.ndarray:
    """A picture of `drpo sample`."""
    out = folder / "drawn.png"
    assert call("sample", "--prompt", "a red star above a blue ring", "--count", "1", "--out", out, *options) == 0
    with Image.open(out) as picture:
        return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def expected(run: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    folder = tmp_path_factory.mktemp("drawn")
    picture = draw(folder, "--adapter", run)
    assert np.abs(picture - draw(folder)).max() > 20  # the adapter matters
    return picture


@pytest.mark.parametrize("form", FORMS)
def test_what_was_exported_draws_the_same_picture(
    run: Path, expected: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    out = tmp_path / ("style.safetensors" if form == "kohya" else "exported")
    assert call("export", run, "--format", form, "--out", out) == 0
    assert f"written to {out} and loaded back" in capsys.readouterr().out.replace("\n", "")
    again = draw(tmp_path, "--generator" if form == "merged" else "--adapter", out)
    assert np.abs(again - expected).max() <= 3


def test_where_it_is_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("export", run, "--format", "kohya") == 0
    assert (run / "export" / "kohya.safetensors").is_file()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call("export", run, "--format", "kohya", "--out=~/loras") == 0  # a shell leaves the ~ here
    assert (tmp_path / "loras" / "kohya.safetensors").is_file()


def test_a_whole_unet_is_exported_beside_its_adapters_folder_too(tmp_path: Path) -> None:
    (tmp_path / "adapter" / "unet").mkdir(parents=True)
    assert _choose_out(None, "diffusers", tmp_path / "adapter" / "unet") == tmp_path / "export" / "diffusers"


def test_what_cannot_be_exported_is_told_before(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    for words, message in (
        ([run, "--format", "gguf"], "'gguf' is not one of 'diffusers', 'peft', 'kohya', 'merged'"),
        ([run], "Missing option '--format'"),
        ([tmp_path, "--format", "peft"], f"there is neither a LoRA adapter nor a U-Net in {tmp_path}"),
        (
            [tmp_path / "none", "--format", "peft"],
            f"there is neither a LoRA adapter nor a U-Net in {tmp_path / 'none'}",
        ),
        ([run, "--format", "peft", "--out", tmp_path / "there"], f"--out: {tmp_path / 'there'} exists; remove it"),
        ([run, "--format", "peft", "--generator", "shapes-xl"], "layers match the U-Net"),
        ([run, "--format", "peft", "--device", "gpu"], "model.device"),
    ):
        assert call("export", *words) == 2
        assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())  # the frame of some errors
    assert not (run / "export" / "peft").exists()
