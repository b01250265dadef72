"""The report and the page of a sweep in headless Chromium, in a frame as wide as a telephone and as wide as a screen."""

import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.run_folder import make_run
from limbeck.pipelines.console.whatif import plot_sweep
from limbeck.pipelines.report.build import write_report

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, so no page can be rendered"),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=8000 --dump-dom"
)
# the pages have no script, so a page around them measures: what is wider than the screen, and text that leaves its figure
WRAPPER = """<!doctype html><iframe src="/PAGE" width="WIDTH" height="900" style="border: 0"></iframe><pre></pre><script>
document.querySelector("iframe").addEventListener("load", event => {
  const inside = event.target.contentDocument, root = inside.documentElement;
  const shown = [...inside.querySelectorAll("svg.plot text")]
    .filter(text => getComputedStyle(text).display !== "none" && text.getBBox().width);
  const outside = shown.filter(text => {
    const box = text.getBoundingClientRect(), frame = text.closest("figure").getBoundingClientRect();
    return box.left < frame.left || box.right > frame.right + 1 || box.top < frame.top || box.bottom > frame.bottom;
  });
  const boxes = [...inside.querySelectorAll("svg.plot")].map(plot => [...plot.querySelectorAll(".tick, .name, .total")]
    .filter(text => shown.includes(text)).map(text => [text.textContent, text.getBoundingClientRect()]));
  const overlapping = boxes.flatMap(texts => texts.flatMap(([a, p], index) => texts.slice(index + 1).filter(([, q]) =>
    p.left < q.right && q.left < p.right && p.top + 2 < q.bottom && q.top + 2 < p.bottom).map(([b]) => [a, b])));
  document.querySelector("pre").textContent = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth,
    texts: shown.length, outside: outside.map(text => text.textContent), overlapping,
    bars: [...inside.querySelectorAll("svg.plot .part")].map(part => part.getBoundingClientRect().width),
    numbers: [...inside.querySelectorAll("svg.plot .inside")].filter(text => shown.includes(text)).length,
    focusable: [...inside.querySelectorAll("*")].filter(e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX))
      .every(e => e.tabIndex === 0 && e.getAttribute("aria-label")),
  });
});
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str], Path]]:
    """(address, paths that were asked for, a profile) of a server for the two pages and the page that measures them."""
    folder = tmp_path_factory.mktemp("pages")
    run = make_run(folder / "run", rounds=2)
    (folder / "report").write_bytes(write_report(run).html.read_bytes())
    points = [
        {"value": step / 10, "kept": 1000 - 90 * step, "sources_kept": 500 - 50 * step, "undecided": step, "share": 0.1}
        for step in range(11)
    ]
    plot_sweep("filters.pmi.min_faithfulness", points, folder / "sweep")
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/")
            asked.append(path)
            page, _, width = path.partition("-")
            text = WRAPPER.replace("PAGE", page).replace("WIDTH", width) if width else ""
            content = text.encode() if width else (folder / page).read_bytes() if page in ("report", "sweep") else b""
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked, tmp_path_factory.mktemp("profile")
    server.shutdown()
    thread.join()
    server.server_close()


def measured(site: tuple[str, list[str], Path], page: str, width: int) -> dict[str, Any]:
    address, asked, profile = site
    asked.clear()
    command = [
        str(CHROMIUM),
        *FLAGS.split(),
        "--window-size=1600,1000",
        f"--user-data-dir={profile}",
        f"{address}/{page}-{width}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = re.search(r"<pre>(.*?)</pre>", done.stdout, re.S)
    assert found is not None and found[1], done.stdout[-2000:]
    return dict(json.loads(html.unescape(found[1])))


@pytest.mark.parametrize("width", [320, 390, 700, 1440])
@pytest.mark.parametrize("page", ["report", "sweep"])
def test_a_page_fits_its_screen_and_asks_for_nothing(site: tuple[str, list[str], Path], page: str, width: int) -> None:
    found = measured(site, page, width)
    assert found["width"] <= width and found["scroll"] <= found["width"], "the page scrolls sideways"
    assert found["texts"] > 5 and not found["outside"] and not found["overlapping"], found
    assert found["focusable"], "what scrolls can be reached from the keyboard, and has a name"
    assert set(site[1]) <= {page, f"{page}-{width}", "favicon.ico"}


def test_more_numbers_are_shown_in_wider_bars(site: tuple[str, list[str], Path]) -> None:
    narrow, wide = measured(site, "report", 390), measured(site, "report", 1440)
    assert max(wide["bars"]) > 2 * max(narrow["bars"]) > 0
    assert wide["numbers"] >= narrow["numbers"] > 0
