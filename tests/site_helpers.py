"""The built site for its tests: build it once, open it in a browser without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from browser import NoBrowser, find_chromium, launch_arguments  # noqa: F401
from repository import read_address

# The browser resolves no name: what is not served here cannot be reached.
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
# Pages that Sphinx and the theme add to the chapters.
EXTRA = ("search", "genindex", "404")


@cache
def documents() -> list[str]:
    """Return the documents of the table of contents, root first, as in _toc.yml."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [
        chapter["file"] for part in toc["parts"] for chapter in part["chapters"]
    ]
    return [toc["root"], *chapters]


def notebooks() -> list[str]:
    """Return the documents that are notebooks."""
    return [name for name in documents() if (ROOT / f"{name}.ipynb").exists()]


@dataclass(frozen=True)
class Site:
    """A finished build.

    Attributes:
        html: the folder that would be published.
        status: exit status of `jupyter-book build -W`.
        log: what it printed.
    """

    html: Path
    status: int
    log: str

    def page(self, name: str) -> str:
        """Return the HTML of a document."""
        return (self.html / f"{name}.html").read_text(encoding="utf-8")


def build_site(basetemp: Path) -> Site:
    """Build the book, once for all test processes of a run.

    Args:
        basetemp: pytest's folder for this process; workers have theirs side by side.
    """
    folder = basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp
    with FileLock(folder / "site.lock"):
        log, status = folder / "site.log", folder / "site.status"
        if not status.exists():
            done = subprocess.run(
                [
                    Path(sys.executable).parent / "jupyter-book",
                    *("build", "-W", "-n", "--keep-going", str(ROOT / "book")),
                    *("--path-output", str(folder)),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            log.write_text(done.stdout + done.stderr, encoding="utf-8")
            status.write_text(str(done.returncode), encoding="utf-8")
        html = folder / "_build" / "html"
        return Site(html, int(status.read_text()), log.read_text(encoding="utf-8"))


@dataclass
class Visit:
    """What happened while a page was open.

    Attributes:
        page: Playwright's page.
        outside: addresses of requests that would have left the machine.
        missing: addresses on the site that do not exist.
        complaints: errors on the console and uncaught exceptions.
    """

    page: object
    outside: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def handler_for(html: Path, prefix: str) -> type[SimpleHTTPRequestHandler]:
    """Return a handler that serves a folder under a path, as GitHub Pages does."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(html))

        def translate_path(self, path: str) -> str:
            inside = path.startswith(prefix)
            path = path.removeprefix(prefix) if inside else "outside-the-site"
            return super().translate_path("/" + path)

        def send_error(self, code: int, message=None, explain=None) -> None:
            page = (html / "404.html").read_bytes()
            self.send_response(code)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return Handler


@contextmanager
def published(html: Path) -> Iterator[str]:
    """Serve the site; give the address of its root folder, ending in "/"."""
    prefix = read_address().prefix
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(html, prefix))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
    finally:
        server.shutdown()
        server.server_close()


class Reader:
    """A browser window of one size and color scheme, reading the site."""

    def __init__(
        self, browser: object, address: str, *, width: int, scheme: str
    ) -> None:
        self.address = address
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.context.set_default_timeout(60_000)

    def open(self, name: str) -> Visit:
        """Open a page of the site and wait until it has settled.

        Args:
            name: a document ("chapters/index"), with a query if need be
                ("search.html?q=word").
        """
        visit = Visit(self.context.new_page())
        watch(visit)
        file = name if ".html" in name else f"{name}.html"
        visit.page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((self.address, "data:", "blob:"))
                else visit.outside.append(request.url)
            ),
        )
        visit.page.on(
            "response",
            lambda response: (
                visit.missing.append(response.url) if response.status >= 400 else None
            ),
        )
        visit.page.goto(self.address + file)
        settle(visit.page)
        return visit


def watch(visit: Visit) -> None:
    """Note what the console complains about."""
    visit.page.on(
        "console",
        lambda message: (
            visit.complaints.append(message.text) if message.type == "error" else None
        ),
    )
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))


def settle(page: object) -> None:
    """Wait for letters, mathematics and the theme's own scripts."""
    page.wait_for_load_state("load")
    page.evaluate(
        """async () => {
            await document.fonts.ready;
            if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
            await new Promise(r => requestAnimationFrame(() => setTimeout(r, 50)));
        }"""
    )


def unfold(page: object) -> None:
    """Open everything that is folded away: cells, solutions, details."""
    folded = page.evaluate(
        """() => {
            document.querySelectorAll("article details").forEach(d => d.open = true);
            const titles = document.querySelectorAll(
                "article .toggle-hidden > .admonition-title");
            titles.forEach(title => title.click());
            return titles.length;
        }"""
    )
    if folded:
        page.wait_for_timeout(400)  # the theme fades solutions in
