"""The real Dagster UI in headless Chromium: the graph is drawn, the smoke recipe materializes, the mixture plot is visible; it
says what is stale, and why."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"

pytestmark = [
    pytest.mark.ui,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium (or any Chromium on the PATH)"),
]


@pytest.fixture
def environment(project: Path) -> dict[str, str]:
    """Of every Dagster process on the small project."""
    (project.parent / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    return {**os.environ, "MIDTRAIN_PROJECT": str(project), "DAGSTER_HOME": str(project.parent)}


@pytest.fixture
def server(project: Path, environment: dict[str, str]) -> Iterator[str]:
    """`dagster dev -w workspace.yaml` on a free port, with the small project."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (project.parent / "server.log").open("w")
    dagster = Path(sys.executable).parent / "dagster"
    command = [str(dagster), "dev", "-w", str(ROOT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, cwd=project.parent, env=environment, stdout=log, stderr=log, start_new_session=True)
    base = f"http://127.0.0.1:{port}"
    try:
        wait_for(base, process, project.parent / "server.log")
        yield base
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(base: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{base}/server_info", timeout=2):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(f"the UI was not up after {seconds:.0f} s: {log.read_text()[-2000:]}")


def finished_run(base: str, seconds: float = 420) -> str:
    """Status of the newest run once it has ended, asked of the UI's own API."""
    body = json.dumps({"query": "{runsOrError(limit: 1) {... on Runs {results {status}}}}"}).encode()
    deadline = time.monotonic() + seconds
    status = "none"
    while time.monotonic() < deadline and status not in ("SUCCESS", "FAILURE", "CANCELED"):
        time.sleep(2)
        request = urllib.request.Request(f"{base}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            runs = json.load(answer)["data"]["runsOrError"]["results"]
        status = runs[0]["status"] if runs else "none"
    return status


def collect_one_more(project: Path, environment: dict[str, str]) -> None:
    """A document appears, and its source alone is materialized."""
    with (project.parent / "prose.jsonl").open("a") as lines:
        lines.write(
            json.dumps({"id": "late", "text": "A page about weirs, and about the eels that climb them at night."}) + "\n"
        )
    words = ["asset", "materialize", "--select", "key:raw_documents/prose", "-m", "midtrain_dagster.definitions"]
    dagster = Path(sys.executable).parent / "dagster"
    done = subprocess.run([dagster, *words], cwd=project.parent, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


def test_materialize_the_smoke_recipe_see_its_mixture_and_what_is_stale(
    server: str, project: Path, environment: dict[str, str]
) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(90_000)
        page.goto(f"{server}/asset-groups")
        page.get_by_text("packed_sequences").or_(page.get_by_text("mix", exact=True)).first.wait_for()
        page.get_by_role("button", name="Materialize all").click()
        page.get_by_text("Launched run").wait_for()
        page.goto("about:blank")  # an animated page would take half a core from the run
        assert finished_run(server) == "SUCCESS"
        page.goto(f"{server}/runs")
        page.get_by_text("Success", exact=True).first.wait_for()
        page.goto(f"{server}/assets/mixture/smoke?view=overview")
        page.get_by_text("budget tokens").first.wait_for()
        page.locator("img[src^='data:image/png']").or_(page.get_by_text("Show Markdown")).first.wait_for()
        shown = page.get_by_text("Show Markdown")
        if shown.count():
            shown.first.click()
        picture = page.locator("img[src^='data:image/png']").first
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") > 100
        page.goto("about:blank")
        collect_one_more(project, environment)
        page.goto(f"{server}/assets/clean_documents/prose?view=overview")
        page.get_by_text("Unsynced (1)").first.hover()
        page.get_by_text("1 upstream data version change").wait_for()
        page.get_by_text("has a new data version").wait_for()
        browser.close()
