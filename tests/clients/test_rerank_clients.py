"""The real clients of rerank services, each in an environment of its own, get the right order with their defaults.

The last test writes the table of docs/clients.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from clients.environments import Task, make_environment, make_node_modules, run_command, run_python
from clients.packages import CLIENTS, OPENAI, VERCEL, Client
from support import ROOT

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]  # pip may take minutes

GUIDE = ROOT / "docs" / "clients.md"

PYTHON = """
import json, sys
task = json.loads(sys.stdin.read())
URL, QUERY, DOCUMENTS = task["url"], task["query"], task["documents"]
{setup}
answer = {call}
print("ORDER", json.dumps({order}))
"""

JAVASCRIPT = """
import {{ readFileSync }} from "node:fs";
const {{ url: URL, query: QUERY, documents: DOCUMENTS }} = JSON.parse(readFileSync(0, "utf8"));
{setup}
const answer = await {call};
console.log("ORDER", JSON.stringify({order}));
"""


def read_order(printed: str) -> list[int]:
    match = re.search(r"^ORDER (\[.*\])$", printed, re.M)
    assert match, printed
    return json.loads(match[1])


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_gets_the_right_order(client: Client, task: Task) -> None:
    python = make_environment(client.environment, client.packages)
    program = PYTHON.format(setup=client.setup, call=client.call, order=client.order)
    assert read_order(run_python(python, program, stdin=task.as_json())) == task.order


def test_vercels_client_gets_the_right_order(task: Task) -> None:
    folder = make_node_modules("vercel", VERCEL.packages)
    (folder / "rank.mjs").write_text(JAVASCRIPT.format(setup=VERCEL.setup, call=VERCEL.call, order=VERCEL.order))
    assert read_order(run_command(["node", "rank.mjs"], folder, task.as_json())) == task.order


def test_openais_client_lists_the_models(task: Task) -> None:
    program = """
import json, sys
from openai import OpenAI
client = OpenAI(base_url=json.loads(sys.stdin.read())["url"] + "/v1", api_key="KEY")
print(sorted(model.id for model in client.models.list()), client.models.retrieve("geneval").owned_by)
"""
    printed = run_python(make_environment("openai", OPENAI), program, stdin=task.as_json())
    assert printed.strip() == "['default', 'geneval'] drpo-rewards"


def make_table() -> str:
    rows = [f"| {client.name} | {client.version} | `{client.call}` |" for client in (*CLIENTS, VERCEL)]
    return "\n".join(["| client | package | call |", "|---|---|---|", *rows])


def test_the_guide_has_this_table() -> None:
    """Runs last: the calls above have worked with these versions."""
    text = GUIDE.read_text(encoding="utf-8")
    before, _, rest = text.partition("<!-- written by tests/clients -->\n")
    _, _, after = rest.partition("<!-- end -->")
    written = f"{before}<!-- written by tests/clients -->\n{make_table()}\n<!-- end -->{after}"
    Path(GUIDE).write_text(written, encoding="utf-8")
    assert text == written, "docs/clients.md was out of date; the table is written anew"
