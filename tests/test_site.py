"""The site that `make site` builds, served on loopback and opened in headless Chromium; notebooks stay as they are.

Screenshots go to $DHM_SCREENSHOTS where it is set, in both themes.
"""

import functools
import importlib.util
import os
import re
import shutil
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

import dhm
from dhm import paths

SITE = paths.root() / "build" / "site"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built (make site)")

PAGES = sorted(file.relative_to(SITE).as_posix() for file in SITE.rglob("*.html") if "_static" not in file.parts)
LOOKED_AT = [
    "index",
    *(f"notebooks/{name}" for name in ("00_tour", "table1_cifar100", "eq11_gradient_penalty", "report")),
]
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
DRAWN = "() => !document.querySelector('span.math, div.math') || document.querySelector('mjx-container svg')"


class Anchors(HTMLParser):
    """Where a page leads to, and the places in it that can be led to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed((SITE / page).read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if value and name == "id":
                self.names.add(value)
            elif value and name in ("href", "src"):
                self.links.append(value)


def test_every_link_inside_the_site_leads_somewhere() -> None:
    anchors = {page: Anchors(page) for page in PAGES}
    dead = []
    for page, found in anchors.items():
        for link in found.links:
            address = urlsplit(urljoin(f"/{page}", link))
            target = unquote(address.path).lstrip("/") or "index.html"
            if address.scheme or address.netloc:
                continue
            named = not address.fragment or target not in anchors or unquote(address.fragment) in anchors[target].names
            if not (SITE / target).is_file() or not named:
                dead.append((page, link))
    assert not dead
    assert sum(len(found.links) for found in anchors.values()) > 1000


def test_the_navigation_is_the_readmes_table() -> None:
    """Read here by a split of its rows: parts and notebooks in the table's order."""
    rows = [line.split("|")[1:] for line in (paths.root() / "README.md").read_text().splitlines() if "| [" in line]
    told = [word for part, _, link, *_ in rows for word in (part.strip(" *"), link.partition("(")[2].partition(".")[0])]
    navigation = (SITE / "index.html").read_text().partition('<nav class="bd-links')[2].partition("</nav>")[0]
    shown = re.findall(r'caption-text">([^<]+)<|href="(notebooks/\w+)\.html"', navigation)
    parts = [part or page for part, page in shown]
    assert parts[: parts.index("Reference")] == [word for word in told if word]


def test_the_reference_has_every_public_name() -> None:
    found = Anchors("api.html").names
    assert {f"dhm.{name}" for name in dhm.__all__} <= found
    documented = {name for name in found if re.fullmatch(r"dhm\.\w+", name)}
    assert documented == {f"dhm.{name}" for name in dhm.__all__}
    assert {f"dhm.BranchedNet.{name}" for name in ("all_logits", "features", "main_only", "parameter_groups")} <= found


@pytest.mark.parametrize("address", ["", "https://github.com/someone/companion"])
def test_buttons_take_the_address_from_the_project(address: str, tmp_path: Path, monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location("build", paths.root() / "docs" / "site" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    setting = f'urls = {{Repository = "{address}"}}' if address else ""
    (tmp_path / "pyproject.toml").write_text(f"[project]\n{setting}\n")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    settings = build.configuration()
    assert ("launch_buttons" in settings) == bool(address)
    assert settings.get("repository", {}).get("url", "") == address


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def test_pages_in_a_browser(browser, address: str) -> None:
    """No error in the console, no request to another host, formulas drawn, nothing wider than a phone or a laptop."""
    page = browser.new_page()
    wrong: list[tuple[str, str]] = []

    def note(what: str) -> None:
        wrong.append((page.url, what))

    page.on("console", lambda message: message.type in ("error", "warning") and note(message.text))
    page.on("pageerror", lambda error: note(str(error)))
    page.on("request", lambda request: request.url.startswith((address, "data:")) or note(request.url))
    page.on("requestfailed", lambda request: note(request.url))
    wide = []
    for name in PAGES:
        page.goto(address + name)
        page.wait_for_function(DRAWN)
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            if page.evaluate(OVERFLOW) > 0:
                wide.append((name, width))
    page.close()
    assert (wrong, wide) == ([], [])


def test_code_is_one_click_away(browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address + "notebooks/00_tour.html")
    code = page.locator("div.cell_input pre").first
    assert not code.is_visible()
    page.locator("div.cell summary").first.click()
    assert code.is_visible()
    page.close()


def test_search_finds_the_page_of_eq11(browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address + "search.html?q=gradient+penalty")
    hit = page.locator("ul.search a[href*='notebooks/eq11_gradient_penalty.html']").first
    hit.wait_for()
    hit.click()
    assert "Equation 11" in page.title()
    page.close()


@pytest.mark.skipif("DHM_SCREENSHOTS" not in os.environ, reason="$DHM_SCREENSHOTS names no folder")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_screenshots(browser, address: str, theme: str, width: int) -> None:
    folder = Path(os.environ["DHM_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    for name in LOOKED_AT:
        page.goto(f"{address}{name}.html")
        page.wait_for_function(DRAWN)
        page.wait_for_timeout(500)  # for the eye alone: side bars slide in
        file = folder / f"site-{name.split('/')[-1]}-{width}-{theme}.png"
        page.screenshot(path=file, full_page=True)
        assert file.stat().st_size > 20_000
    page.close()
