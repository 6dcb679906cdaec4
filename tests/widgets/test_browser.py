"""The tour and the explorers in a real browser: JupyterLab of its own, headless Chromium, a hand on the sliders.

Screenshots go to $DHM_SCREENSHOTS where it is set, in both themes of JupyterLab.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dhm import paths
from dhm.records.store import find

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")

PATIENCE = 180  # seconds for any one thing, on a slow machine
SETTINGS = {
    "notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "themes": {"theme": "JupyterLab Light"},
}
NOTEBOOK = "window.jupyterapp?.shell.currentWidget"
READY = f"() => {NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle' && {NOTEBOOK}.content?.model"
CODE = f"[...{NOTEBOOK}.content.model.cells].filter(cell => cell.type === 'code')"
DONE = f"""() => {NOTEBOOK}.sessionContext.session.kernel.status === 'idle'
           && {CODE}.every(cell => cell.executionCount !== null && cell.executionState !== 'running')"""
ERRORS = f"() => {CODE}.flatMap(cell => cell.outputs.toJSON()).filter(o => o.output_type === 'error')"
BYTES = "async image => Array.from(new Uint8Array(await (await fetch(image.src)).arrayBuffer()))"


@dataclass
class Lab:
    """A running JupyterLab."""

    url: str
    token: str
    folder: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on a folder with copies of the notebooks, with nothing of the user's: config, data, workspaces."""
    home = tmp_path_factory.mktemp("lab")
    work, settings, log = home / "work", home / "settings", home / "server.log"
    work.mkdir()
    for name in ("00_tour", "explore"):
        source = json.loads((paths.root() / "notebooks" / f"{name}.ipynb").read_text())
        for cell in source["cells"]:  # what is found afterwards was made here
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=None)
        (work / f"{name}.ipynb").write_text(json.dumps(source))
    for name, values in SETTINGS.items():
        file = settings / "@jupyterlab/apputils-extension" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {
        **os.environ, "DHM_PRESET": os.environ.get("DHM_PRESET", "smoke"), "DHM_RUNS": str(home / "runs"),
        "DHM_FIGURES": str(home / "figures"), "PYTHONPATH": str(paths.root()), "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={work}", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    with open(log, "w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=work)
    try:
        end = time.monotonic() + PATIENCE
        while not _listens(port):
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end, "JupyterLab does not start"
            time.sleep(0.1)
        yield Lab(f"http://127.0.0.1:{port}", token, work)
    finally:
        server.terminate()
        server.wait(PATIENCE)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator["sync_api.Page"]:
    """A window of 1280 x 800."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1280, "height": 800})
        window.set_default_timeout(1000 * PATIENCE)
        yield window
        browser.close()


def run_all(page: "sync_api.Page", lab: Lab, name: str) -> None:
    """Open a notebook, run all its cells, and see that they ran without an error."""
    page.goto(f"{lab.url}/lab/tree/{name}.ipynb?token={lab.token}&reset")
    page.wait_for_function(READY)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.wait_for_function(DONE)
    assert page.evaluate(ERRORS) == []


def cell_of(page: "sync_api.Page", source: str) -> "sync_api.Locator":
    """The cell with this source, scrolled to; JupyterLab holds no others than those near the window."""
    index = page.evaluate(
        f"source => [...{NOTEBOOK}.content.model.cells].findIndex(cell => cell.sharedModel.source.startsWith(source))",
        source,
    )
    page.evaluate(f"index => {NOTEBOOK}.content.scrollToItem(index, 'start')", index)
    cell = page.locator(f".jp-Cell[data-windowed-list-index='{index}']")
    cell.wait_for()
    return cell


def image(cell: "sync_api.Locator") -> str:
    """A digest of the bytes of the picture an explorer shows."""
    return hashlib.sha256(bytes(cell.locator("img.widget-image").evaluate(BYTES))).hexdigest()


def wait_until_changed(cell: "sync_api.Locator", before: str) -> None:
    end = time.monotonic() + PATIENCE
    while image(cell) == before:
        assert time.monotonic() < end, "the picture did not change"
        time.sleep(0.05)


def shots(page: "sync_api.Page", name: str, cell: "sync_api.Locator") -> None:
    """The window with the cell at its top, in both themes."""
    if "DHM_SCREENSHOTS" not in os.environ:
        return
    name = re.sub(r"\W+", "-", name)
    folder = Path(os.environ["DHM_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    for theme in ("Dark", "Light"):
        page.evaluate(f"""() => window.jupyterapp.commands.execute(
            'apputils:change-theme', {{theme: 'JupyterLab {theme}'}})""")
        page.wait_for_function(f"() => document.body.dataset.jpThemeName === 'JupyterLab {theme}'")
        cell.evaluate("cell => cell.scrollIntoView({block: 'start'})")
        page.wait_for_timeout(500)  # for the eye alone
        page.screenshot(path=folder / f"{name}-{theme.lower()}.png")
        cell.evaluate("cell => cell.scrollIntoView({block: 'end'})")
        page.wait_for_timeout(500)
        page.screenshot(path=folder / f"{name}-{theme.lower()}-end.png")


def test_tour(page: "sync_api.Page", lab: Lab) -> None:
    run_all(page, lab, "00_tour")
    for source in (
        "import dhm",
        "network.view",
        "loss.view",
        "errors =",
        "looked_at",
        "display(Markdown(notebook",
    ):
        shots(page, f"tour-{source.partition('(')[0]}", cell_of(page, source))


def test_explorers(page: "sync_api.Page", lab: Lab) -> None:
    """Every explorer answers to a hand on its controls; none holds the kernel."""
    run_all(page, lab, "explore")
    for source, control in (("loss.explore", "B1, class 0"), ("expansion.explore", "noise σ")):
        cell = cell_of(page, source)
        before = image(cell)
        handle = cell.locator(".widget-slider", has_text=control).locator(".noUi-handle")
        handle.focus()
        for _ in range(5):
            handle.press("ArrowRight")
        wait_until_changed(cell, before)
        shots(page, source, cell)

    cell = cell_of(page, "network.explore")
    before = image(cell)
    cell.locator("select").first.select_option("wrn16_8")
    wait_until_changed(cell, before)
    before = image(cell)
    cell.locator("select").first.select_option("cifar_resnet")
    wait_until_changed(cell, before)
    cell.get_by_text("depth", exact=True).wait_for()
    shots(page, "network", cell)

    cell = cell_of(page, "runs.explore")
    before = image(cell)
    options = cell.locator("select option")
    assert options.count() == 3 + len(list(find(paths.records_dir())))
    cell.locator("select").select_option(index=0)
    wait_until_changed(cell, before)
    shots(page, "runs", cell)

    cell = cell_of(page, "live.explore")
    cell.get_by_role("button", name="Start training").click()
    cell.get_by_text("of 12, under way").wait_for()
    cell.locator("img.widget-image").wait_for()
    shots(page, "live", cell)
    assert page.evaluate(READY), "the kernel is not free while a training runs"
    cell.get_by_role("button", name="Stop").click()
    cell.get_by_text("of 12, ").filter(has_text="stopped").or_(cell.get_by_text("finished")).wait_for()
