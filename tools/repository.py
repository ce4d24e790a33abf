"""Write the repository's public address into every file that names it.

    python tools/repository.py https://github.com/me/book
    python tools/repository.py --check

The address stands in one place, `[project.urls]` in pyproject.toml. From it follow
the links of the site (_config.yml), the badges and commands in README.md and on the
pages, and the set-up cell of every notebook. This script changes all of them at once
and touches nothing else; `--check` (and a test) reports a file that names another
address. Recordings stay valid: their hash leaves the set-up cell out.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Underscores are not allowed in an owner's name, so this is nobody's repository.
PLACEHOLDER = "https://github.com/__owner__/__repo__"
# This file and the tests speak of addresses without meaning the repository's.
SPARED = ("tools/", "tests/", "book/vendor/")
TEXT = {
    ".cfg",
    ".ipynb",
    ".json",
    ".md",
    ".py",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
    ".cff",
}


class AddressError(ValueError):
    """The address cannot be used; the message says why and what is expected."""


@dataclass(frozen=True)
class Address:
    """Where the repository and the published book are.

    Attributes:
        repository: "https://github.com/owner/repo".
        pages: address of the published book, ending in "/".
    """

    repository: str
    pages: str

    @property
    def slug(self) -> str:
        """The "owner/repo" of the repository."""
        return self.repository.removeprefix("https://github.com/")

    @property
    def prefix(self) -> str:
        """The path under which the book is published: "/repo/", or "/"."""
        return "/" + self.pages.split("://", 1)[1].partition("/")[2]

    @classmethod
    def parse(cls, repository: str, pages: str | None = None) -> Address:
        """Read an address as people write it (`.git`, a slash at the end).

        Args:
            repository: the address on GitHub.
            pages: the address of the book; None for GitHub Pages' own.

        Raises:
            AddressError: it is not the address of a repository on GitHub, or the
                book's address is not one.
        """
        plain = repository.strip().rstrip("/").removesuffix(".git")
        found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+)", plain)
        if not found:
            raise AddressError(
                f"'{repository}' is not a repository's address: expected "
                "https://github.com/OWNER/REPOSITORY (Colab opens notebooks from there)."
            )
        owner, name = found.groups()
        if pages is None:
            home = name.lower() == f"{owner.lower()}.github.io"
            pages = f"https://{owner.lower()}.github.io/" + ("" if home else f"{name}/")
        if not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[\w./-]*)?", pages):
            raise AddressError(
                f"'{pages}' is not the address of a site: expected something like "
                "https://book.example.org/."
            )
        return cls(plain, pages.rstrip("/") + "/")


def read_address(root: Path = ROOT) -> Address:
    """Return the address that pyproject.toml holds."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("[project.urls]")[2]
    urls = dict(
        re.findall(r'^(Repository|Documentation) = "(.+)"$', table, re.MULTILINE)
    )
    return Address.parse(urls["Repository"], urls["Documentation"])


def text_files(root: Path = ROOT) -> list[Path]:
    """Return the files of the repository that may name its address."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    names = sorted(set(listed.stdout.split("\0")) - {""})
    return [
        root / name
        for name in names
        if not name.startswith(SPARED)
        and Path(name).suffix in TEXT
        and (root / name).is_file()
        and not (root / name).is_symlink()
    ]


def rewrite(text: str, old: Address, new: Address) -> str:
    """Return a file's text with the new address in place of the old one."""
    # ".../repo" must not match inside ".../repo-two", but before ".git" and a full stop.
    end = r"(?![\w-]|\.(?!git\b)\w)"
    text = re.sub(
        rf"github\.com/{re.escape(old.slug)}{end}", f"github.com/{new.slug}", text
    )
    colab = "colab.research.google.com/github/"
    text = re.sub(
        rf"{re.escape(colab + old.slug)}{end}", lambda _: colab + new.slug, text
    )
    text = text.replace(old.pages, new.pages)
    return re.sub(
        rf"(notfound_urls_prefix: ){re.escape(old.prefix)}$",
        lambda found: found[1] + new.prefix,
        text,
        flags=re.MULTILINE,
    )


def write_address(new: Address, root: Path = ROOT) -> list[Path]:
    """Write an address into every file that names the present one.

    Returns:
        The files that changed.
    """
    old = read_address(root)
    changed = []
    for path in text_files(root):
        before = path.read_text(encoding="utf-8")
        after = rewrite(before, old, new)
        if after != before:
            path.write_text(after, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed


def strangers(root: Path = ROOT) -> list[str]:
    """Return what disagrees with pyproject.toml, one sentence each.

    Looks at the places that must name the address, and at every file for the
    placeholder once a real address has been written.
    """
    address = read_address(root)
    config = (root / "_config.yml").read_text(encoding="utf-8")
    wanted = {
        r"^  url: (.+)$": address.repository,
        r"^  baseurl: (.+)$": address.pages,
        r"^    ogp_site_url: (.+)$": address.pages,
        r"^    notfound_urls_prefix: (.+)$": address.prefix,
    }
    found = []
    for pattern, value in wanted.items():
        seen = re.findall(pattern, config, re.MULTILINE)
        if seen != [value]:
            found.append(f"_config.yml: {pattern} is {seen}, expected {value}.")
    for path in text_files(root):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(root).as_posix()
        for slug in re.findall(
            r"git\+https://github\.com/([\w.-]+/[\w.-]+?)[\"'\s\\]", text
        ):
            if slug != address.slug:
                found.append(f"{name}: installs from {slug}, expected {address.slug}.")
        for slug in re.findall(
            r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)", text
        ):
            if slug != address.slug:
                found.append(f"{name}: opens {slug} in Colab, expected {address.slug}.")
        if address.repository != PLACEHOLDER and "__owner__" in text:
            found.append(f"{name}: still has the placeholder address.")
    return found


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", help="https://github.com/OWNER/REPOSITORY")
    parser.add_argument("--pages", help="where the book is published, if not there")
    parser.add_argument("--check", action="store_true", help="change nothing")
    arguments = parser.parse_args()
    if not arguments.check and not arguments.url:
        parser.error("give the repository's address, or --check")
    if arguments.url:
        try:
            new = Address.parse(arguments.url, arguments.pages)
        except AddressError as error:
            print(error, file=sys.stderr)
            return 2
        for path in write_address(new):
            print(f"  {path.relative_to(ROOT)}")
        print(f"The repository is {new.repository}, the book {new.pages}")
    found = strangers()
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
