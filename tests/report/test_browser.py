"""The HTML page in a real, headless Chromium: it is drawn, sorts, filters, asks nobody, and runs no name.

The tests run where the package playwright and a Chromium are installed, else they are skipped and say so;
with QUANTCLI_REQUIRE_BROWSER=1 (``make test-browser``) a missing one is a failure. QUANTCLI_CHROMIUM names the
program where it is not found by itself.
"""

import os
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from full_report import EVIL, bare, full, large

from quantcli.report.html.render import render_html

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
LARGEST_BYTES = 2_000_000
SLOWEST_SECONDS = 2.0

RUNS_CODE = (
    "<img src=x onerror='window.evil=1'>\"><script>window.evil=1</script></title><script>window.evil=1</script>"
    "</style></script><svg onload='window.evil=1'>`${window.evil=1}`{{window.evil=1}}"
)


REPORTS = {
    "bare": bare,
    "full": full,
    "triple": lambda: full(many=3),
    "long": lambda: large(120),
    "large": large,
    "evil": lambda: full(EVIL, many=12),
    "code": lambda: full(RUNS_CODE, many=12),
}


@cache
def html_of(name: str) -> str:
    return render_html(REPORTS[name]())


def missing(reason: str) -> None:
    if os.environ.get("QUANTCLI_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("the package playwright is not installed")
    program = os.environ.get("QUANTCLI_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        missing("there is no Chromium; QUANTCLI_CHROMIUM can name one")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Seen:
    """What a page did besides being shown."""

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@pytest.fixture
def show(chromium, tmp_path: Path):
    """Opens a report without a network; at the end, nothing but its file may have been asked for."""
    contexts = []
    seen = Seen()
    allowed: set[str] = set()

    def opened(name, **options):
        file = tmp_path / f"report{len(allowed)}.html"
        file.write_text(html_of(name), encoding="utf-8")
        allowed.add(file.as_uri())
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_offline(True)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda message: seen.messages.append(message.text))
        page.on("pageerror", lambda error: seen.messages.append(str(error)))
        page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(file.as_uri())
        return page

    opened.seen = seen
    yield opened
    for context in contexts:
        context.close()
    assert {url for url in seen.requests if url != "data:,"} == allowed
    assert seen.messages == []
    assert seen.dialogs == []


def column(page, table: str, index: int) -> list[str]:
    rows = page.locator(f"#table-{table} tbody tr:not([hidden]) td:nth-child({index})")
    return rows.all_inner_texts()


def heading(page, table: str, label: str):
    return page.locator(f"#table-{table} th", has=page.get_by_role("button", name=label, exact=True))


def test_the_verdict_and_the_charts_are_drawn(show):
    page = show("triple")
    assert page.locator("#verdict .word").inner_text() == "Fail"
    assert "sqnr of 'logits' is 31.27 dB" in page.locator("h1").inner_text()
    assert page.locator("#verdict").bounding_box()["y"] < 200
    charts = page.locator("svg.chart")
    assert charts.count() >= 8
    for index in range(charts.count()):
        box = charts.nth(index).bounding_box()
        assert box["width"] > 200
        assert box["height"] > 60
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_bare_report_is_drawn(show):
    page = show("bare")
    assert page.locator("#verdict .word").inner_text() == "No gates"
    assert page.locator(".cards li").count() == 1


def test_a_click_on_a_heading_sorts_by_numbers_and_again_turns_round(show):
    page = show("long")
    head = heading(page, "layers", "Own SQNR")
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    rising = [float(text.split()[0]) for text in column(page, "layers", 4)]
    assert head.get_attribute("aria-sort") == "ascending"
    assert rising == sorted(rising)
    assert rising[0] == 12.0
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text.split()[0]) for text in column(page, "layers", 4)] == rising[::-1]


def test_the_keyboard_sorts_as_well(show):
    page = show("long")
    button = heading(page, "layers", "Node").get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    names = column(page, "layers", 1)
    numbers = [[int("".join(filter(str.isdigit, part)) or 0) for part in name.split("/")] for name in names]
    assert numbers == sorted(numbers)


def test_what_is_exact_is_the_largest_and_what_was_not_measured_stays_last(show):
    page = show("triple")
    button = heading(page, "outputs", "SQNR").get_by_role("button")
    button.click()
    assert column(page, "outputs", 2) == ["-inf dB"] * 3 + ["31.3 dB"] * 3 + ["exact"] * 3 + ["–"] * 3
    button.click()
    assert column(page, "outputs", 2) == ["exact"] * 3 + ["31.3 dB"] * 3 + ["-inf dB"] * 3 + ["–"] * 3


def test_typing_filters_the_rows(show):
    page = show("long")
    field = page.get_by_label("Filter Layers")
    field.fill("stage1 conv3")
    names = column(page, "layers", 1)
    assert len(names) == 10
    assert all("stage1/" in name and "conv3/" in name for name in names)
    assert page.locator("#table-layers .count").inner_text() == "10 of 120 rows"
    field.fill("")
    assert len(column(page, "layers", 1)) == 120
    assert page.locator("#table-layers .count").inner_text() == "120 rows"


@pytest.mark.parametrize(("report", "name"), [("evil", EVIL), ("code", RUNS_CODE)])
def test_names_run_no_code(show, report, name):
    page = show(report)
    page.get_by_label("Filter Layers").fill("a")
    for button in page.locator("#table-layers th button").all()[:3]:
        button.click()
    assert page.evaluate("window.evil") is None
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 0
    assert name.split("\n")[0][:20] in page.locator("#verdict").inner_text()


def test_the_policy_of_the_page_stops_scripts_and_pictures_that_are_not_its_own(show):
    page = show("bare")
    blocked = page.evaluate(
        """async () => {
            const blocked = [];
            const note = (event) => blocked.push(event.effectiveDirective);
            document.addEventListener("securitypolicyviolation", note);
            const script = document.createElement("script");
            script.textContent = "window.evil = 1";
            const picture = document.createElement("img");
            picture.src = "https://example.com/x.png";
            document.body.append(script, picture);
            await new Promise((done) => setTimeout(done, 100));
            return blocked;
        }"""
    )
    assert sorted(blocked) == ["img-src", "script-src-elem"]
    assert page.evaluate("window.evil") is None
    assert all("Content Security Policy" in message for message in show.seen.messages)
    show.seen.messages.clear()
    show.seen.requests[:] = [url for url in show.seen.requests if "example.com" not in url]  # it was stopped


def background(page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_theme_follows_the_system_and_the_button(show):
    light, dark = (show("bare", color_scheme=scheme) for scheme in ("light", "dark"))
    colours = background(light), background(dark)
    assert colours[0] != colours[1]
    for page, other in ((light, colours[1]), (dark, colours[0])):
        before = background(page)
        page.locator("#theme").click()
        assert background(page) == other
        page.locator("#theme").click()
        assert background(page) == before


def test_charts_have_the_colours_of_the_theme(show):
    fills = []
    for scheme in ("light", "dark"):
        page = show("full", color_scheme=scheme)
        fills.append(page.locator("svg.chart text").first.evaluate("node => getComputedStyle(node).fill"))
    assert fills[0] != fills[1]


def test_print_is_light_and_without_controls(show):
    page = show("long", color_scheme="dark")
    page.emulate_media(media="print")
    assert background(page) == "rgb(255, 255, 255)"
    assert not page.locator("#theme").is_visible()
    assert not page.get_by_label("Filter Layers").is_visible()
    assert page.locator("#table-layers .scroll").evaluate("node => node.scrollHeight <= node.clientHeight + 1")
    assert page.pdf().startswith(b"%PDF")


def test_a_telephone_needs_no_scrolling_sideways(show):
    page = show("triple", viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_page_is_usable_without_scripts(show):
    page = show("full", java_script_enabled=False)
    assert page.locator("#verdict .word").inner_text() == "Fail"
    assert not page.locator("#theme").is_visible()


def test_a_large_report_is_small_and_opens_quickly(show):
    assert len(html_of("large").encode()) < LARGEST_BYTES
    page = show("large")
    taken = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert page.locator("#table-layers tbody tr").count() == 900
    assert taken / 1000 < SLOWEST_SECONDS
