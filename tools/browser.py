"""Find the machine's own Chromium, for the site tests and for `make pdf`."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO_GET_ONE = (
    "No Chromium was found. Install one (Debian and Ubuntu: apt-get install chromium; "
    "macOS: brew install --cask chromium), or name it in the variable CHROMIUM."
)


class NoBrowser(RuntimeError):
    """There is no Chromium here; the message says how to get one."""


def find_chromium() -> str:
    """Return the path of a Chromium: the variable CHROMIUM first, then the PATH.

    Raises:
        NoBrowser: none was found.
    """
    mac = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    for name in (os.environ.get("CHROMIUM", ""), *NAMES, mac):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise NoBrowser(HOW_TO_GET_ONE)


def launch_arguments() -> list[str]:
    """Return what Chromium needs: root, as in containers, has no sandbox."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return ["--no-sandbox", "--disable-dev-shm-usage"] if root else []
