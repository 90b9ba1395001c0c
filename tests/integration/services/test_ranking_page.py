"""The page at `/`, in a real Chromium, against a service that the command line started."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from support.browser import CHROMIUM, chromium
from support.service import Served

from drpo_rewards import RankingClient, serving
from drpo_rewards.api.images import encode_png

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]

PATIENCE_MS = 30_000  # of one expectation; a busy machine is slow
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8) // np.array(
    [[[[1]]], [[[4]]], [[[2]]]], dtype=np.uint8
)  # by sharpness: 0, 2, 1; by darkness: 1, 2, 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """Open the page. An error in the browser or a request to another server fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "console", lambda said: wrong.append(said.text) if said.type == "error" and "422" not in said.text else None
    )
    opened.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(served.http_url) else None)
    opened.on(
        "filechooser", lambda _: None
    )  # subscribe early: a key could be pressed before a later subscription is active
    opened.goto(served.http_url)
    expect(opened.get_by_role("checkbox")).to_have_count(3)
    yield opened
    context.close()
    assert [complaint for complaint in wrong if not complaint.startswith(("blob:", "data:"))] == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"picture-{index}.png" for index in range(len(PICTURES))]
    for path, picture in zip(paths, PICTURES, strict=True):
        path.write_bytes(encode_png(picture))
    return paths


def names(page: Page) -> list[str]:
    return page.locator("#ranked h3").all_inner_texts()


def test_a_newcomer_tries_the_example(page: Page) -> None:
    page.get_by_role("button", name="Try it with example pictures").click()
    expect(page.locator("#ranked > li")).to_have_count(6)
    expect(page.get_by_role("status").filter(has_text="6 pictures by z-scores of geneval 100 %")).to_be_visible()
    assert names(page)[0] == "as-asked.png"
    assert names(page)[-1] == "two-triangles.png"
    expect(page.locator("#ranked > li").filter(has_text="green-square.png")).to_contain_text("found green")
    expect(page.locator("#ranked > .best")).to_have_count(1)
    expect(page.get_by_role("button", name="Rank 6 pictures")).to_be_enabled()


def test_a_users_pictures_rewards_and_weights(page: Page, served: Served, files: list[Path]) -> None:
    """The page shows the service's response to the same request."""
    page.locator("#files").set_input_files(files)
    expect(page.get_by_role("list", name="Chosen pictures").get_by_role("img")).to_have_count(3)
    page.get_by_label("Prompt").fill("noise")
    expect(page.get_by_label("What to check")).to_be_visible()
    page.get_by_role("checkbox", name="geneval").uncheck()
    expect(page.get_by_label("What to check")).to_be_hidden()  # the others need none
    expect(page.get_by_label("your own weights")).to_be_checked()
    page.get_by_role("checkbox", name="sharpness").check()
    page.get_by_role("checkbox", name="darkness").check()
    page.get_by_label("Weight of sharpness").fill("3")
    expect(page.get_by_label("Share of darkness")).to_have_text("25 %")
    page.get_by_role("button", name="Rank 3 pictures").click()
    expect(page.locator("#ranked > li")).to_have_count(3)
    with RankingClient(served.http_url) as client:
        answer = client.rank("noise", files, rewards={"sharpness": 3, "darkness": 1})
    assert (
        names(page)
        == [files[index].name for index in answer.order]
        == ["picture-0.png", "picture-2.png", "picture-1.png"]
    )
    first = page.locator("#ranked > li").first
    for scores in (*(result.scores for result in answer.rewards.values()), answer.combined):
        expect(first).to_contain_text(f"{scores[0]:.4g}")
    page.get_by_label("Weight of sharpness").fill("0.1")
    expect(page.locator("#announcement")).to_contain_text("The form has changed")
    page.get_by_role("button", name="Rank 3 pictures").click()
    expect(page.locator("#ranked h3").first).to_have_text("picture-1.png")  # the darkest, now that darkness decides


def test_the_form_follows_what_the_rewards_need(page: Page, served: Served, files: list[Path]) -> None:
    """GenEval's specification is entered as JSON, a text has a field of its own, and prompts have a hint."""
    field = page.locator("#metadata-fields").get_by_label("channel")
    page.locator("#files").set_input_files(files)
    page.get_by_label("Prompt").fill("noise")
    expect(page.locator("#prompt-needs")).to_contain_text(
        "geneval: without metadata: a form like `a photo of two stars`"
    )
    expect(page.get_by_label("What to check")).to_have_attribute("placeholder", re.compile("circle"))
    expect(field).to_have_count(0)
    page.get_by_role("checkbox", name="darkness").check()
    field.fill("red")
    page.get_by_role("checkbox", name="geneval").uncheck()
    expect(page.get_by_label("What to check")).to_be_hidden()
    expect(page.locator("#prompt-needs")).to_be_hidden()
    expect(field).to_have_value("red")
    page.get_by_role("button", name="Rank 3 pictures").click()
    expect(page.locator("#ranked > li")).to_have_count(3)
    with RankingClient(served.http_url) as client:
        scores = (
            client.rank("noise", files, rewards={"darkness": 1}, metadata={"channel": "red"}).rewards["darkness"].scores
        )
    for score in scores:
        expect(page.locator("#ranked")).to_contain_text(f"{score:.4g}")


def test_with_the_keyboard_alone(page: Page, files: list[Path]) -> None:
    keyboard = page.keyboard
    keyboard.press("Tab")
    expect(page.get_by_role("link", name="API documentation")).to_be_focused()
    keyboard.press("Tab")
    expect(page.locator("#files")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        keyboard.press("Space")
    chooser.value.set_files(files)
    expect(page.locator("#chosen li")).to_have_count(3)
    keyboard.press("Tab")
    expect(page.get_by_role("button", name="Remove picture-0.png")).to_be_focused()
    keyboard.press("Enter")
    expect(page.locator("#chosen li")).to_have_count(2)
    expect(page.get_by_role("button", name="Remove picture-1.png")).to_be_focused()
    for _ in range(4):  # the other picture, the example, remove all, the prompt
        keyboard.press("Tab")
    keyboard.type("noise")
    keyboard.press("Tab")
    expect(page.get_by_role("radio", name="default")).to_be_focused()
    keyboard.press("Tab")
    keyboard.press("Space")  # sharpness on
    keyboard.press("Tab")
    expect(page.get_by_label("Weight of sharpness")).to_be_focused()
    keyboard.press("Tab")
    keyboard.press("Space")  # geneval off
    keyboard.press("Control+Enter")
    expect(page.locator("#ranked h3")).to_have_text(["picture-2.png", "picture-1.png"])
    picture = page.get_by_role("button", name="picture-2.png, place 1")
    while not picture.evaluate("element => element === document.activeElement"):
        keyboard.press("Tab")
    keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1. picture-2.png")
    keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("2. picture-1.png")
    keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(picture).to_be_focused()


def test_dropped_files(page: Page) -> None:
    transfer = page.evaluate_handle(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File(["x"], "a.png", {type: "image/png"}));
          transfer.items.add(new File(["x"], "<b>notes</b>.txt", {type: "text/plain"}));
          return transfer;
        }"""
    )
    page.dispatch_event("main", "dragenter", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_have_class(re.compile("over"))
    page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    expect(page.locator("#drop")).not_to_have_class(re.compile("over"))
    expect(page.locator("#chosen li")).to_have_count(1)
    expect(page.locator("#left-out")).to_contain_text("<b>notes</b>.txt")  # as text


def test_errors_are_shown_at_the_field_that_is_wrong(page: Page, files: list[Path], tmp_path: Path) -> None:
    alert, rank = page.get_by_role("alert"), page.locator("#rank")
    rank.click()
    expect(alert).to_contain_text("at least two pictures")
    glass = tmp_path / "glass.png"
    Image.new("RGBA", (32, 32), (255, 0, 0, 90)).save(glass)
    page.locator("#files").set_input_files([*files, glass])
    expect(alert).to_be_hidden()
    rank.click()
    expect(alert).to_contain_text("Enter the prompt")
    expect(page.get_by_label("Prompt")).to_be_focused()
    page.get_by_label("Prompt").fill("noise")
    page.get_by_label("What to check").fill("{")
    rank.click()
    expect(alert).to_contain_text("This is not valid JSON")
    page.get_by_label("What to check").fill("")
    rank.click()
    expect(alert).to_contain_text("glass.png has transparent pixels")
    expect(page.locator("#chosen .wrong img")).to_have_attribute("alt", "glass.png")
    page.get_by_role("button", name="Remove glass.png").click()
    rank.click()
    expect(alert).to_contain_text("geneval needs the prompt's GenEval spec")
    expect(page.get_by_label("What to check")).to_be_focused()


CONTRASTS = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => numbers(color).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return numbers(color)[3] === 0 ? ground(element.parentElement) : color;
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility() || element.disabled || element.tagName === "OPTION") continue;
    const [one, two] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
    found[`${element.tagName} ${element.textContent.slice(0, 30)}`] = (one + 0.05) / (two + 0.05);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_and_no_wider_than_the_screen(page: Page, scheme: str) -> None:
    """All text has the contrast of WCAG AA, in both colour schemes, on wide and on narrow screens."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.get_by_role("button", name="Try it with example pictures").click()
    expect(page.locator("#ranked > li")).to_have_count(6)
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert {text: ratio for text, ratio in contrasts.items() if ratio < 4.5} == {}
    for width in (1280, 800, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_under_a_prefix_and_with_an_api_key(
    ray_cluster: None, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRPO_REWARDS_API_KEYS", "a-key")
    settings = serving.ServiceConfig.model_validate({"rewards": {"darkness": {"type": "support.rewards:Darkness"}}})
    with serving.start(settings, app_name="keyed", http_port=0, grpc_port=0) as service:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(str(service.http_url))
        expect(page.get_by_role("alert")).to_contain_text("An API key is needed")
        page.get_by_label("API key").fill("a-key")
        page.keyboard.press("Enter")
        expect(page.get_by_role("checkbox", name="darkness")).to_be_checked()
        expect(page.get_by_role("alert")).to_be_hidden()
        page.get_by_role("button", name="Try it with example pictures").click()
        expect(page.locator("#ranked > li")).to_have_count(6)
        page.close()


def test_the_page_loads_nothing_from_other_servers(served: Served) -> None:
    page = httpx.get(served.http_url)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text  # no absolute address at all
    script = httpx.get(f"{served.http_url}/page/page.js")
    assert "javascript" in script.headers["content-type"]
    assert httpx.get(script.url, headers={"if-none-match": script.headers["etag"]}).status_code == 304
    whole = httpx.get(script.url, headers={"range": "bytes=5-1"})
    assert (whole.status_code, whole.content) == (200, script.content)
    assert httpx.head(script.url).headers["content-length"] == str(len(script.content))
    for path in ("page/../page.py", "page/%2e%2e/http.py", "page/nothing.js"):
        missing = httpx.get(f"{served.http_url}/{path}")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
