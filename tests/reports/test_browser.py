"""The page in a real browser: figures are drawn, nothing is loaded, nothing is complained about."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from reports.diagnosis import examine, write_picture
from reports.page import render
from tests.reports import synthetic
from tests.stability.traces import decay, noisy, spiked, trace
from tuner.stability.logs import ForeignLog

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Visit:
    """What was left after a page was opened.

    Attributes:
        dom: The document as HTML, without its scripts.
        complaints: Lines of the console: errors of scripts, and loads that were refused.
    """

    dom: str
    complaints: list[str]


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser is installed ({', '.join(BROWSERS)})")
    return found


def visit(browser: str, text: str, folder: Path, *flags: str) -> Visit:
    file = folder / "report.html"
    file.write_text(text, encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1280,2000", "--virtual-time-budget=8000",
        "--enable-logging=stderr", *flags, "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"HOME": str(folder)})
    assert done.returncode == 0, done.stderr[-2000:]
    dom = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.S)
    return Visit(dom, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


def drawn(dom: str) -> set[str]:
    """Names of the figures that hold a drawing with at least one trace."""
    parts = re.split(r'<div class="plot[^>]*data-plot="([\w-]+)"', dom)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {name for name, part in pairs if "<svg" in part and 'class="trace scatter' in part}


def test_figures_are_drawn_without_a_complaint(browser: str, tmp_path: Path) -> None:
    seen = visit(browser, render("runs/digits", **synthetic.run().arguments()), tmp_path)
    assert seen.complaints == []
    assert {"loss-curves", "parallel", *(f"scatter-{number}" for number in range(1, 7))} <= drawn(seen.dom)
    assert len([name for name in drawn(seen.dom) if name.startswith("steps-")]) == 2
    assert seen.dom.count('<div class="plot ') == len(drawn(seen.dom))
    assert "rgb(29, 33, 37)" in seen.dom  # --ink of the light palette, on the axes
    assert not re.search(r'(fill|stroke)(: |=")var\(', seen.dom)


def test_dark_palette_reaches_the_figures(browser: str, tmp_path: Path) -> None:
    text = render("runs/digits", **synthetic.run(("clean", "spikes", "nan")).arguments())
    seen = visit(browser, text, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert seen.complaints == []
    assert "rgb(230, 230, 225)" in seen.dom  # --ink of the dark palette
    assert "rgb(29, 33, 37)" not in seen.dom


def test_legend_switches_curves_and_a_narrow_page_does_not_overflow(browser: str, tmp_path: Path) -> None:
    text = render("runs/digits", **synthetic.run(("clean", "clean")).arguments())
    probe = """<script>
        const before = document.querySelectorAll("[data-plot=loss-curves] .trace").length;
        document.querySelector(".legend button").click();
        const after = document.querySelectorAll("[data-plot=loss-curves] .trace").length;
        const overflow = document.documentElement.scrollWidth - innerWidth;
        document.body.dataset.seen = `${before} ${after} ${overflow > 0}`;
    </script></body>"""
    text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", probe)
    seen = visit(browser, text, tmp_path, "--window-size=500,900")
    assert 'data-seen="4 2 false"' in seen.dom
    assert 'data-group="trial-0" aria-pressed="false"' in seen.dom


def test_a_page_without_figures_has_no_complaint_either(browser: str, tmp_path: Path) -> None:
    seen = visit(browser, render("runs/digits", **synthetic.run((), num_waiting=2).arguments()), tmp_path)
    assert seen.complaints == []
    assert drawn(seen.dom) == set()


def test_a_diagnosis_draws_its_curve_and_marks(browser: str, tmp_path: Path) -> None:
    losses = spiked(noisy(decay(), 0.1, 1), 1200, height=30)
    page = write_picture("a.csv", examine([ForeignLog("a.csv", trace(losses))]), tmp_path / "diagnosis.html")
    seen = visit(browser, page.read_text(encoding="utf-8"), tmp_path)
    assert seen.complaints == []
    assert drawn(seen.dom) == {"training-0"}
    assert re.search(r"<text[^>]*>[^<]*loss spike", seen.dom)


def test_the_policy_refuses_what_a_page_of_ours_never_holds(browser: str, tmp_path: Path) -> None:
    text = render("runs/digits", **synthetic.run(("clean",)).arguments())
    injected = '<img src="https://tuner.invalid/x.png"><script>document.body.id = "taken"</script></main>'
    seen = visit(browser, text.replace("</main>", injected), tmp_path)
    assert any("tuner.invalid" in line for line in seen.complaints)
    assert any("script" in line.lower() for line in seen.complaints)
    assert 'id="taken"' not in seen.dom
