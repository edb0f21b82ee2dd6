"""Make the pictures of the README: the page after the demonstration, one overview image, one study in OHIF.

Needs what `tools/test` installs. Runs the demonstration in a temporary folder.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

from triage_node import config

PLACE = Path(__file__).parents[1] / "tests" / "pictures"
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def main() -> None:
    """Run the demonstration, start its node again and photograph the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not installed: install the Debian package chromium")
    program = [sys.executable, "-m", "triage_node"]
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        out = Path(name) / "demo"
        subprocess.run([*program, "demo", "--out", str(out)], check=True)
        shutil.copyfile(out / "archive" / "PH0008" / "overview.png", PLACE / "overview.png")
        viewer = [sys.executable, "-m", "tests.ohif", str(out), "PH0004", str(PLACE / "ohif.png")]
        subprocess.run(viewer, check=True, cwd=PLACE.parents[1])
        page = f"http://127.0.0.1:{config.load(out / 'node.toml').web.port}/"
        node = subprocess.Popen([*program, "serve", "--config", str(out / "node.toml")], stderr=subprocess.DEVNULL)
        try:
            _wait_for(page)
            _photograph(chromium, page)
        finally:
            node.send_signal(signal.SIGTERM)
            node.wait(20)


def _wait_for(address: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(address, timeout=2):  # noqa: S310  # an address of our own
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit("the page did not come up")


def _photograph(chromium: str, address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
        page = browser.new_page(viewport={"width": 1680, "height": 945})
        page.goto(address)
        page.wait_for_timeout(3000)
        # as in a reading room: one study has been read, one is being read, the first one is looked at
        for key in ("End", "m", "Home", "j", "c"):
            page.keyboard.press(key)
            page.wait_for_timeout(700)
        page.keyboard.press("j")
        page.wait_for_timeout(10_000)  # until nothing moves and the message has gone
        page.screenshot(path=PLACE / "worklist.png")
        page.keyboard.press("Enter")
        page.wait_for_timeout(3000)
        page.screenshot(path=PLACE / "study.png")
        browser.close()


if __name__ == "__main__":
    main()
