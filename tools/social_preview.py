"""Draw the picture that a link to the book shows elsewhere: book/_static/social.png.

    python tools/social_preview.py

Run it after the title or the colors change. The picture is a page in the book's own
letters, photographed by Chromium through Playwright.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from browser import find_chromium, launch_arguments

STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
PAGE = """
<!doctype html><link rel="stylesheet" href="fonts.css"><style>
body { margin: 0; width: 1200px; height: 630px; background: #fdfcf9; color: #20242a;
  display: flex; flex-direction: column; justify-content: space-between;
  box-sizing: border-box; padding: 76px 84px 72px; }
h1 { margin: 0; font: 560 84px/1.08 "Source Serif 4"; letter-spacing: -0.02em; }
p { margin: 28px 0 0; font: 400 34px/1.35 "Source Serif 4"; color: #555b64; }
svg { width: 190px; height: auto; display: block; }
</style>
<div><h1>Image Classification<br>Networks from Scratch</h1>
<p>Built by hand, proved equal to their references,<br>trained on real photographs.</p>
</div>
<svg viewBox="0 0 74 56"><g fill="#20242a">
<rect width="5" height="56" fill="#b1400d"/><rect x="12" y="14" width="9" height="28"/>
<rect x="28" y="21" width="15" height="14"/><rect x="50" y="24.5" width="24" height="7"/>
</g></svg>
"""


def main() -> int:
    """Write the picture; return the exit status."""
    from playwright.sync_api import sync_playwright

    page_file = STATIC / "social.html"
    page_file.write_text(PAGE, encoding="utf-8")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=find_chromium(), args=launch_arguments()
            )
            page = browser.new_page(viewport={"width": 1200, "height": 630})
            page.goto(page_file.as_uri())
            page.evaluate("document.fonts.ready")
            page.screenshot(path=STATIC / "social.png")
            browser.close()
    finally:
        page_file.unlink()
    print(STATIC / "social.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
