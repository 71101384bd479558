"""Screenshots of HTML pages in Chromium, at the width of a phone and of a desktop, whole; to be looked at.

    python scripts/look_at_pages.py runs/first/report.html --out shots

Each page becomes `NAME-WIDTH.png`. The exit status is 1 where a page is wider than its window, so that a reader would
have to scroll sideways. A page is shown in a frame of the width: Chromium makes no window narrower than 500 pixels.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path

from PIL import Image

WIDTHS = (390, 1280)
NARROWEST = 500  # pixels of a window that Chromium makes
TALLEST = 16_000  # pixels of a screenshot
TELL = """<script>addEventListener("load", () => { const page = document.documentElement;
parent.postMessage([page.scrollWidth, page.scrollHeight], "*"); });</script>"""
HEAR = """<script>addEventListener("message", told => {
document.body.dataset.said = JSON.stringify(told.data); });</script>"""


def browse(chromium: str, wrapper: Path, width: int, height: int, *options: str) -> str:
    """Open a page without a screen; what Chromium prints."""
    words = [chromium, "--headless=new", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=5000"]
    size = f"--window-size={max(width, NARROWEST)},{height}"
    ran = subprocess.run([*words, size, *options, wrapper.as_uri()], capture_output=True, text=True, check=True)
    return ran.stdout


def framed(folder: Path, page: Path, width: int, height: int) -> Path:
    """A page that shows another in a frame of this width, and hears its size."""
    (folder / "page.html").write_text(page.read_text("utf-8") + TELL, "utf-8")
    frame = f'<iframe src="page.html" style="border:0;width:{width}px;height:{height}px;display:block"></iframe>'
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f'<!doctype html><body style="margin:0">{HEAR}{frame}</body>', "utf-8")
    return wrapper


def look(chromium: str, page: Path, width: int, out: Path) -> bool:
    """Write one screenshot; whether the page fits its width."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dom = browse(chromium, framed(folder, page, width, 800), width, 800, "--dump-dom")
        found = re.search(r'data-said="([^"]*)"', dom)
        if not found:
            raise SystemExit(f"{page} tells no size: is it a page?")
        wide, tall = json.loads(unescape(found[1]))
        height = min(tall, TALLEST)
        shot = out / f"{page.stem}-{width}.png"
        browse(chromium, framed(folder, page, width, height), width, height, f"--screenshot={folder / 'shot.png'}")
        with Image.open(folder / "shot.png") as image:
            image.crop((0, 0, width, height)).save(shot)
    cut = f", cut at {height:,}" if height < tall else ""
    print(
        f"{shot}: {wide} of {width} pixels wide, {tall:,} tall{cut}"
        + (" — WIDER THAN ITS WINDOW" if wide > width else "")
    )
    return bool(wide <= width)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="folder for the screenshots")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("Chromium is not installed: apt install chromium", file=sys.stderr)
        return 3
    arguments.out.mkdir(parents=True, exist_ok=True)
    fits = [look(chromium, page, width, arguments.out) for page in arguments.pages for width in arguments.widths]
    return 0 if all(fits) else 1


if __name__ == "__main__":
    sys.exit(main())
