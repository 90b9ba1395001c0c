"""Preference sets on the disk, right ones and wrong ones, and how their images are prepared."""

from __future__ import annotations

import io
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.preferences import PROMPTS, draw_image, encode_image, pick_row, write_parquet, write_pickapic, write_table

from drpo.config import OfflineConfig
from drpo.data.preferences import Preference, find_preference_source, read_preference_prompts
from drpo.data.preferences.pictures import read_picture
from drpo.errors import ConfigError


def read_all(settings: OfflineConfig) -> list[Preference]:
    parts = find_preference_source(settings.source).open_parts(settings)
    return [preference for part in parts for preference in part.read()]


def color_of(picture: Path | bytes) -> str:
    content = picture if isinstance(picture, bytes) else picture.read_bytes()
    red, _, blue = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).mean(axis=(0, 1))
    return "red" if red > blue else "blue"


def test_a_table_has_paths_relative_to_itself(tmp_path: Path) -> None:
    table = write_table(tmp_path / "set", images=2)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    rows[1] |= {"chosen": rows[1]["chosen"][0], "rejected": [str(tmp_path / "set" / rows[1]["rejected"][0])]}
    table.write_text("\ufeff" + "\r\n".join(json.dumps(row) for row in rows))  # of another system
    settings = OfflineConfig(path=str(table))
    preferences = read_all(settings)
    assert [preference.prompt for preference in preferences] == list(PROMPTS)
    assert [len(preference.chosen) for preference in preferences] == [2, 1, 2, 2]
    assert {color_of(picture) for preference in preferences for picture in preference.chosen} == {"red"}
    assert {color_of(picture) for preference in preferences for picture in preference.rejected} == {"blue"}
    assert read_preference_prompts(settings) == list(PROMPTS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", "is not JSON"),
        ("[1]", "must be an object"),
        ({"prompt": " "}, '"prompt" must be a text that is not empty'),
        ({"prompt": 7}, '"prompt" must be a text that is not empty'),
        ({"caption": "x"}, "the row has caption, chosen, rejected"),
        ({"prompt": "\ud83d"}, "half of a character"),
        ({"chosen": []}, '"chosen" must be the path of an image or a list of such paths, not []'),
        ({"chosen": [""]}, '"chosen" must be the path'),
        ({"chosen": {"path": "images/0-0-chosen.png"}}, '"chosen" must be the path'),
        ({"rejected": None}, '"rejected" must be the path'),
        ({"rejected": [3]}, '"rejected" must be the path'),
        ({"rejected": "images/none.png"}, "\"rejected\": there is no file 'images/none.png' in "),
        ({"rejected": "images"}, "\"rejected\": there is no file 'images' in "),
        ({"rejected": "a\0b"}, "there is no file 'a\\x00b' in "),
        ({"rejected": "x" * 5000}, "there is no file 'xxxx"),
        ({"rejected": ["images/0-0-chosen.png"]}, "0-0-chosen.png is both chosen and rejected"),
        ({"rejected": "images/../images/0-0-chosen.png"}, "0-0-chosen.png is rejected, but they are the same picture"),
        ({"rejected": "images/copy.png"}, "copy.png is rejected, but they are the same picture"),
    ],
)
def test_wrong_rows_of_a_table_are_named(tmp_path: Path, line: Any, message: str) -> None:
    table = write_table(tmp_path / "set")
    shutil.copy(tmp_path / "set/images/0-0-chosen.png", tmp_path / "set/images/copy.png")
    rows = table.read_text().splitlines()
    if isinstance(line, dict):
        changed = json.loads(rows[0]) | line
        if "caption" in line:
            del changed["prompt"]
            changed = {"caption": changed.pop("caption"), **changed}
        line = json.dumps(changed)
    table.write_text("\n".join([rows[0], rows[1], line, rows[2]]))
    with pytest.raises(ConfigError) as caught:
        read_preference_prompts(OfflineConfig(path=str(table)))
    assert str(caught.value).startswith(f"{table}:3: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_every_wrong_row_is_told(tmp_path: Path) -> None:
    table = write_table(tmp_path / "set")
    table.write_text("x\n" + table.read_text() + "y\n")
    with pytest.raises(ConfigError, match=r"(?s):1: is not JSON.*:6: is not JSON"):
        read_preference_prompts(OfflineConfig(path=str(table)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "offline.path is not set"),
        ({"path": "none.jsonl"}, "offline.path: there is no file none.jsonl"),
        ({"path": "none"}, "offline.path: none: the ending (none) is not known"),
        ({"source": "pickapic_v2", "path": "/no/such/folder"}, "offline.path: there is no folder /no/such/folder"),
    ],
)
def test_a_set_that_is_not_there_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_preference_prompts(OfflineConfig(**settings))
    assert message in str(caught.value)


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="has no preferences"):
        read_preference_prompts(OfflineConfig(path=str(tmp_path / "empty.jsonl")))


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="no source of preferences 'jsnl'; choose from file, pickapic_v2"):
        read_preference_prompts(OfflineConfig(source="jsnl"))


def test_pickapic_is_read_by_its_labels_without_ties(tmp_path: Path) -> None:
    settings = OfflineConfig(source="pickapic_v2", path=str(write_pickapic(tmp_path)))
    preferences = read_all(settings)
    assert [preference.prompt for preference in preferences] == [*PROMPTS, *PROMPTS[:2]]
    assert {color_of(picture) for preference in preferences for picture in preference.chosen} == {"red"}
    assert {color_of(picture) for preference in preferences for picture in preference.rejected} == {"blue"}
    assert preferences[0].position.endswith("train-00000-of-00002-ab12.parquet:row 1")
    assert preferences[-1].position.endswith("train-00001-of-00002-cd34.parquet:row 2")
    assert read_preference_prompts(settings) == list(PROMPTS)
    test = settings.model_copy(update={"split": "test"})
    assert [preference.prompt for preference in read_all(test)] == read_preference_prompts(test) == ["a test prompt"]


def test_the_names_of_a_single_file_do_not_matter(tmp_path: Path) -> None:
    write_parquet(tmp_path / "mine.parquet", [pick_row("a circle", 0)])
    for path in (tmp_path, tmp_path / "mine.parquet"):
        settings = OfflineConfig(source="pickapic_v2", path=str(path))
        assert [preference.prompt for preference in read_all(settings)] == ["a circle"]


def test_wrong_files_of_pickapic_are_named(tmp_path: Path) -> None:
    settings = OfflineConfig(source="pickapic_v2", path=str(write_pickapic(tmp_path)))
    with pytest.raises(ConfigError, match=r"nothing of the split 'trian' in .*: its files are of test, train"):
        read_preference_prompts(settings.model_copy(update={"split": "trian"}))
    file = tmp_path / "data" / "train-00001-of-00002-cd34.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    with pytest.raises(ConfigError, match=r"cd34\.parquet:row 1: cannot be read as Parquet: "):
        read_preference_prompts(settings)
    write_parquet(file, [{"caption": "a circle", "label": 1}])
    with pytest.raises(ConfigError, match=r"cd34\.parquet:row 1: there is no column jpg_0, jpg_1, label_0, has_label"):
        read_preference_prompts(settings)
    write_parquet(file, [pick_row("a circle", 0), pick_row("a square", 1, jpg_1=b"")])
    with pytest.raises(ConfigError, match=r'cd34\.parquet:row 2: "jpg_1" holds no image'):
        read_all(settings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="it has no parquet file"):
        read_preference_prompts(OfflineConfig(source="pickapic_v2", path=str(tmp_path / "empty")))


def test_a_set_is_known_by_its_content(tmp_path: Path) -> None:
    table = write_table(tmp_path / "set")
    source, settings = find_preference_source("file"), OfflineConfig(path=str(table))
    before = source.identify(settings)
    assert source.identify(settings) == before
    draw_image("red", 77).save(tmp_path / "set" / "images" / "0-0-chosen.png")
    assert source.identify(settings) != before
    folder = write_pickapic(tmp_path / "pick")
    source, settings = find_preference_source("pickapic_v2"), OfflineConfig(source="pickapic_v2", path=str(folder))
    before = source.identify(settings)
    write_parquet(folder / "data" / "train-00000-of-00002-ab12.parquet", [pick_row("a circle", 0)])
    assert source.identify(settings) != before


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (64, 192), (96, 131), (200, 77)])
def test_a_picture_is_scaled_by_its_shorter_side_and_cropped_in_the_middle(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """A black image with a white square in its middle keeps it in the middle, in its shape."""
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    side = min(size) // 4
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side] = 255
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    prepared = read_picture(tmp_path / "picture.png", (32, 32), "here")
    assert prepared.shape == (3, 32, 32)
    assert prepared.min() == -1
    assert prepared.max() == 1
    rows, columns = (prepared[0] > 0).nonzero(as_tuple=True)
    assert abs(rows.float().mean() - 15.5) <= 1.1
    assert abs(columns.float().mean() - 15.5) <= 1.1
    assert abs(len(rows) - 64) <= 18  # 8 x 8, up to half a pixel on each side


def test_a_picture_of_the_right_size_is_unchanged() -> None:
    image = draw_image("red", 3)
    prepared = read_picture(encode_image("red", 3), (64, 64), "here")
    expected = np.asarray(image).astype(np.float64) / 255 * 2 - 1
    np.testing.assert_allclose(prepared.permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_a_picture_is_read_as_the_services_read_theirs(tmp_path: Path) -> None:
    """Upright, and refused if rows are missing or a conversion would be a guess."""
    file = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(1, 256, (64, 64, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees, as a phone notes it
    Image.fromarray(pixels[..., :3]).save(file, exif=exif)
    turned = torch.from_numpy(pixels[..., :3] / 127.5 - 1).permute(2, 0, 1).flip(1, 2)
    torch.testing.assert_close(read_picture(file, (64, 64), "here"), turned.float())

    Image.fromarray(pixels).save(file)
    with pytest.raises(
        ConfigError, match=r"set:4: cannot read .*picture\.png: it has transparent pixels; .* the image$"
    ):
        read_picture(file, (64, 64), "set:4")
    Image.fromarray(pixels[..., :3]).save(file)
    whole = file.read_bytes()
    length, start = int.from_bytes(whole[33:37], "big"), whole.index(b"IDAT") + 4
    rows = zlib.compress(zlib.decompress(whole[start : start + length])[: 40 * (1 + 3 * 64)])
    chunk = b"IDAT" + rows
    parts = [whole[:33], len(rows).to_bytes(4, "big"), chunk, zlib.crc32(chunk).to_bytes(4, "big"), whole[-12:]]
    file.write_bytes(b"".join(parts))
    with pytest.raises(ConfigError, match=r"picture\.png: it is truncated or damaged"):
        read_picture(file, (64, 64), "set:4")


@pytest.mark.parametrize("content", [b"no image", b"", encode_image("red", 0)[:300]])
def test_what_is_no_picture_is_refused_with_its_row(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ConfigError, match=r"set.jsonl:4: cannot read .*broken.png: "):
        read_picture(tmp_path / "broken.png", (64, 64), "set.jsonl:4")
    with pytest.raises(ConfigError, match=r"row 4: cannot read an image of \d+ bytes: "):
        read_picture(content, (64, 64), "row 4")
