"""A page of another origin in a real browser: `allowed_origins` lets it in, with its preflights, and nobody else."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser
from support.browser import CHROMIUM, chromium
from support.service import KEY, PICTURES, REDS, config

from drpo_rewards import serving
from drpo_rewards.api.images import encode_png

pytestmark = [
    pytest.mark.integration,
    pytest.mark.thorough,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]

IMAGES = [base64.b64encode(encode_png(picture)).decode() for picture in PICTURES[:2]]

CALL = """async ({url, key, images}) => {
    const headers = {"content-type": "application/json", "x-request-id": "from-a-page"};
    if (key) headers.authorization = "Bearer " + key;
    const body = JSON.stringify({prompt: "p", images});
    try {
        const response = await fetch(url + "/v1/rank", {method: "POST", headers, body});
        return {status: response.status, id: response.headers.get("x-request-id"), answer: await response.json()};
    } catch (error) {
        return {blocked: String(error)};
    }
}"""

# What every page may send without asking first; it cannot read the answer.
FORM = """async ({url}) => {
    const body = new FormData();
    body.append("request", new Blob(['{"prompt": "p"}'], {type: "application/json"}));
    await fetch(url + "/v1/rank", {method: "POST", mode: "no-cors", body});
}"""


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two origins with an empty page each."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<!doctype html><title>A page</title>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.1:{server.server_port}" for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def browser(origins: list[str]) -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module", params=["with keys", "without keys"])
def open_service(
    request: pytest.FixtureRequest, ray_cluster: None, origins: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str | None]]:
    """A service that allows the first origin: its address, and its key."""
    changes: dict[str, Any] = {"rewards": {"redness": {"type": "support.rewards:TracedRedness"}}, "mixtures": {}}
    key = KEY if request.param == "with keys" else None
    if key:
        changes["api_keys_file"] = Path(tmp_path_factory.mktemp("keys")) / "keys"
        changes["api_keys_file"].write_text(key)
    settings = config(**changes, allowed_origins=origins[:1])
    with serving.start(settings, app_name="origins", http_port=0, grpc_port=None) as running:
        assert running.http_url is not None
        yield running.http_url, key


def call(browser: Browser, origin: str, url: str, key: str | None, script: str = CALL) -> Any:
    page = browser.new_page()
    try:
        page.goto(origin)
        return page.evaluate(script, {"url": url, "key": key, "images": IMAGES})
    finally:
        page.close()


def test_the_allowed_page_ranks(browser: Browser, origins: list[str], open_service: tuple[str, str | None]) -> None:
    url, key = open_service
    answer = call(browser, origins[0], url, key)
    assert (answer["status"], answer["id"]) == (200, "from-a-page")
    assert answer["answer"]["order"] == (-REDS[:2]).argsort().tolist()
    if key:
        answer = call(browser, origins[0], url, "another key")
        assert (answer["status"], answer["answer"]["code"]) == (401, "unauthenticated")


def test_another_page_does_not(browser: Browser, origins: list[str], open_service: tuple[str, str | None]) -> None:
    """Neither by a call, which the browser asks about first, nor by a form, which it sends at once."""
    url, key = open_service
    assert "Failed to fetch" in call(browser, origins[1], url, key)["blocked"]
    headers = {"authorization": f"Bearer {key}"}

    def count_ranked() -> list[str]:
        lines = httpx.get(f"{url}/metrics", headers=headers, trust_env=False).text.splitlines()
        return [line for line in lines if line.startswith("drpo_rewards_requests_total") and 'operation="rank"' in line]

    before = [line for line in count_ranked() if 'code="ok"' in line]
    call(browser, origins[1], url, key, FORM)
    assert [line for line in count_ranked() if 'code="ok"' in line] == before
