"""Photographs the report of a run, for the README: python scripts/screenshot_report.py runs/quickstart

Needs playwright (the dev extra) and a Chromium on the path, or in CHROMIUM.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

from dapo_trl.report.page import write_report

DOCS = Path(__file__).resolve().parent.parent / "docs"
VIEWS = {"report.png": "#overview", "report-rollouts.png": "#rollouts"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--output", type=Path, default=DOCS, help="where the pictures go (default: docs/)")
    args = parser.parse_args()
    page_file = write_report([args.run]).resolve()
    browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-headless-shell")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        page.goto(page_file.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.select_option("#filter-verdict", "wrong")
        page.select_option("#filter-sort", "largest advantage, either sign")
        for name, section in VIEWS.items():
            page.evaluate(f"document.querySelector('{section}').scrollIntoView()")
            page.wait_for_timeout(500)  # for the charts in view to be drawn
            page.screenshot(path=args.output / name)
        browser.close()


if __name__ == "__main__":
    main()
