"""Prompt files by their ending, and everything that is wrong with one in one error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from drpo.config import PromptsConfig
from drpo.data.prompts import PromptRecord, load_prompts
from drpo.errors import ConfigError

GENEVAL = {"tag": "counting", "include": [{"class": "cat", "count": 2}], "prompt": "two cats"}


def load(path: Path, content: str | bytes | None = None, **settings: Any) -> list[PromptRecord]:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_prompts(PromptsConfig(source="file", path=str(path), **settings))


def problems(path: Path, content: str | bytes, **settings: Any) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(ConfigError) as error:
        load(path, content, **settings)
    return str(error.value).replace(f"{path.parent}/", "").splitlines()


def test_jsonl(tmp_path: Path) -> None:
    lines = [{"prompt": "a"}, {"prompt": "b", "metadata": {"x": 1}, "task": "t"}, GENEVAL, {"caption": "c", "task": 3}]
    path = tmp_path / "prompts.jsonl"
    records = load(path, "\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert records == [
        PromptRecord("a"),
        PromptRecord("b", {"x": 1}, "t"),
        PromptRecord("two cats", GENEVAL, "counting"),
        PromptRecord("c", None, "3"),
    ]
    assert [record.prompt for record in load(path, tasks=("t",))] == ["b"]


def test_every_kind_of_file_gives_the_same_records(tmp_path: Path) -> None:
    expected = [
        PromptRecord('say "hi", twice', {"n": [1, 2]}, "words"),
        PromptRecord(" a café 🐈 ", None, "odd/[task]"),
    ]
    rows = [{"caption": record.prompt, "group": record.task, "metadata": record.metadata} for record in expected]
    texts = [{**row, "metadata": json.dumps(row["metadata"]) if row["metadata"] else ""} for row in rows]
    pandas.DataFrame(rows).to_parquet(tmp_path / "structures.parquet")
    pandas.DataFrame(texts).to_parquet(tmp_path / "texts.parquet")
    pandas.DataFrame(texts).to_csv(tmp_path / "a.csv", index=False)
    lines = ["caption\tgroup\tmetadata", *("\t".join(row.values()) for row in texts)]  # type: ignore[arg-type]
    (tmp_path / "a.tsv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("structures.parquet", "texts.parquet", "a.csv", "a.tsv", "a.jsonl"):
        assert load(tmp_path / name, task_column="group") == expected, name
        assert load(tmp_path / name, column="group")[1].prompt == "odd/[task]"


def test_text_files_have_a_prompt_on_each_line(tmp_path: Path) -> None:
    records = load(tmp_path / "A.TXT", 'a cat\n\n  \n a dog, "two" \u2028 lines\n{}')
    assert [record.prompt for record in records] == ["a cat", ' a dog, "two" \u2028 lines', "{}"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.txt", ["é", "b"]),
        ("a.jsonl", ['{"prompt": "é"}', '{"prompt": "b"}']),
        ("a.csv", ["prompt,task", "é,", "b,"]),
        ("a.tsv", ["prompt\ttask", "é\t", "b\t"]),
    ],
)
def test_line_ends_of_any_system_and_a_byte_order_mark(
    tmp_path: Path, name: str, lines: list[str], end: str, mark: bytes
) -> None:
    content = mark + end.join([*lines, ""]).encode()
    assert load(tmp_path / name, content) == [PromptRecord("é"), PromptRecord("b")]


def test_a_field_of_a_csv_may_hold_line_ends_and_its_line_is_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert load(path, 'prompt\n"a\nb"\nc\n') == [PromptRecord("a\nb"), PromptRecord("c")]
    assert problems(path, 'prompt,task\n"a\nb",t\n"c\nd",t,u\n" ",t\n') == [
        "a.csv:4: has 3 fields, but the first line names 2 columns",
        'a.csv:6: "prompt" is empty',
    ]


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    lines = [
        b'{"prompt": "fine"}',
        b"{",
        b'{"text": ""}',
        b'{"prompt": "a \\ud83d circle"}',
        b'{"prompt": "caf\xe9"}',
        b'{"prompt": 7}',
        b'["a"]',
        b'{"prompt": "a\\u0000b"}',
        b'{"prompt": "a", "metadata": 3}',
        b'{"prompt": "a", "metadata": {"x": NaN}}',
        b'{"prompt": "a", "metadata": {"x": "\\udc00"}}',
        b'{"prompt": "a", "task": ["t"]}',
        b'{"words": "a"}',
        b"[" * 100_000,
        b"{}",
        b'{"prompt": "a", "metadata": {"x": 1, "y": 2, "x": 1}}',
    ]
    found = problems(tmp_path / "a.jsonl", b"\n".join(lines))
    assert sorted(int(line.split(":")[1]) for line in found) == list(range(2, 17))
    told = "\n".join(found)
    for words in (
        "a.jsonl:2: is not JSON",
        'a.jsonl:3: "text" is empty',
        'a.jsonl:4: "prompt" holds half of a character (the lone surrogate \\ud83d)',
        "a.jsonl:5: byte 16 of the line (0xe9) is not UTF-8; save the file as UTF-8",
        'a.jsonl:6: "prompt" must be text, not 7',
        "a.jsonl:7: must be an object",
        'a.jsonl:8: "prompt" holds a NUL character',
        'a.jsonl:9: "metadata" must be an object',
        'a.jsonl:10: "metadata" cannot be sent as JSON',
        'a.jsonl:11: "metadata" holds half of a character',
        'a.jsonl:12: "task" must be text',
        "a.jsonl:13: has no column prompt or caption or Prompt or text: the row has words; prompts.column",
        "a.jsonl:14: is not usable JSON: it is nested too deeply",
        "the row has none",
        "a.jsonl:16: names the key 'x' twice",
    ):
        assert words in told


def test_many_problems_are_counted(tmp_path: Path) -> None:
    found = problems(tmp_path / "a.jsonl", "?\n" * 30)
    assert len(found) == 21
    assert found[-1] == "a.jsonl: 10 more problems"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "cp1252", "utf-32"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv"])
def test_other_encodings_are_refused_with_their_line(tmp_path: Path, name: str, encoding: str) -> None:
    text = '{"prompt": "café"}\n' if name == "a.jsonl" else "prompt\ncafé\n"
    found = problems(tmp_path / name, text.encode(encoding))
    assert all(line.startswith(f"{name}:") for line in found)
    assert "UTF-8" in found[0] or "NUL" in found[0] or "JSON" in found[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", 'prompt\n"open\nb\n', "a.csv:2: is not a row: unexpected end of data"),
        ("a.csv", "prompt,prompt\na,b\n", "a.csv:1: two columns are named 'prompt'"),
        ("a.csv", "words\na\n", "a.csv:2: has no column prompt"),
        ("a.csv", "prompt,metadata\na,{\n", 'a.csv:2: "metadata" is not JSON'),
        (
            "a.tsv",
            'prompt\tn\n"a\tb"\tc\n',
            "a.tsv:2: has 3 fields, but the first line names 2 columns; a .tsv has no quoting",
        ),
        ("a.jsonl", f'{{"prompt": "a", "n": {"9" * 5000}}}', "has 5000 digits; each line is one object"),
        ("a.parquet", "PAR1 and no more", "a.parquet:row 1: cannot be read as Parquet"),
        ("a.xlsx", "", "the ending .xlsx is not known; a prompt file ends with .txt, .jsonl, .csv, .tsv, .parquet"),
        ("a", "", "the ending (none) is not known"),
        ("a.txt", "", "has no prompts"),
        ("a.csv", "", "has no prompts"),
    ],
)
def test_the_error_says_what_is_wrong_and_where(tmp_path: Path, name: str, content: str, message: str) -> None:
    (first, *_) = problems(tmp_path / name, content)
    assert message in first


def test_a_file_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    for path, message in ((tmp_path / "none.txt", "there is no file"), (tmp_path / "folder.txt", "is a folder")):
        with pytest.raises(ConfigError, match=message):
            load(path)
    with pytest.raises(ConfigError, match=r"evaluation\.path is not set"):
        load_prompts(PromptsConfig(source="file"), section="evaluation")


def test_an_empty_cell_of_a_parquet_file_has_its_row(tmp_path: Path) -> None:
    pandas.DataFrame({"prompt": ["a", None], "task": [None, "t"]}).to_parquet(tmp_path / "a.parquet")
    assert problems(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes()) == [
        'a.parquet:row 2: "prompt" is empty'
    ]


def test_a_parquet_column_of_bytes_is_told_where_a_text_is_missing(tmp_path: Path) -> None:
    pandas.DataFrame({"prompt": [b"a"], "seed": [1]}).to_parquet(tmp_path / "a.parquet")
    missing, hint = problems(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert missing.startswith("a.parquet:row 1: has no column prompt")
    assert hint == "a.parquet: columns of bytes are not read (prompt); save texts and paths as strings"


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    settings = PromptsConfig(source="file", path=str(tmp_path / "a.txt"), split="test")
    assert len(load_prompts(settings)) == 1
    with pytest.raises(ConfigError, match="no split 'tets': the source file has only one set"):
        load_prompts(settings.model_copy(update={"split": "tets"}))


def test_parquet_leaves_out_pictures_and_empty_fields(tmp_path: Path) -> None:
    rows = [{"class": "cat", "count": 1, "color": None}, {"class": "cat", "count": 1, "color": "red"}]
    frame = pandas.DataFrame({"prompt": ["a", "b"], "include": [[row] for row in rows], "jpg": [b"\xff", b"\xfe"]})
    frame.to_parquet(tmp_path / "a.parquet")
    first, second = load(tmp_path / "a.parquet")
    assert first.metadata == {"prompt": "a", "include": [{"class": "cat", "count": 1}]}
    assert second.metadata == {"prompt": "b", "include": [rows[1]]}
