"""What stands outside the notebooks and must agree with them.

The order of the book (_toc.yml), the family tree (book/family.yml), the bibliography
and the table of badges in README.md. Read as files, without the site's tools.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from .notebook import Chapter, chapter_name, chapter_paths

BADGES_BEGIN = "<!-- chapters:begin (written by `nbs tidy --all`) -->"
BADGES_END = "<!-- chapters:end -->"
_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
_ENTRY = re.compile(r"^@(\w+)\s*\{\s*([^,\s]+)\s*,(.*?)^\}", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Work:
    """One entry of the bibliography: key, last names of its authors, year."""

    key: str
    authors: tuple[str, ...]
    year: str

    @property
    def label(self) -> str:
        """How it is cited: "He et al., 2016"."""
        names = list(self.authors) or [self.key]
        if len(names) > 2:
            names = [f"{names[0]} et al."]
        return f"{' and '.join(names)}, {self.year}"


def toc_documents(root: Path) -> list[str]:
    """Return the documents of _toc.yml in their order: "chapters/index", ...

    Returns:
        An empty list where there is no _toc.yml.
    """
    path = root / "_toc.yml"
    if not path.exists():
        return []
    toc = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    found = [toc["root"]] if "root" in toc else []
    for part in toc.get("parts", []):
        found += [entry["file"] for entry in part.get("chapters") or []]
    return found


def in_order(root: Path) -> list[str]:
    """Return the names of all chapters, those of _toc.yml first and in its order."""
    names = [chapter_name(path, root) for path in chapter_paths(root)]
    order = [document.removeprefix("chapters/") for document in toc_documents(root)]
    place = {name: number for number, name in enumerate(order)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def read_family(root: Path) -> dict[str, list]:
    """Return the networks of book/family.yml: name -> [year, column, parents, chapter].

    Returns:
        An empty dictionary where there is no family.yml.
    """
    path = root / "book" / "family.yml"
    if not path.exists():
        return {}
    raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return raw.get("networks") or {}


def family_columns(root: Path) -> list[str]:
    """Return the columns of book/family.yml, from left to right."""
    path = root / "book" / "family.yml"
    if not path.exists():
        return []
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("columns", [])


def read_works(root: Path) -> list[Work]:
    """Return the entries of book/references.bib."""
    path = root / "book" / "references.bib"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    works = []
    for _, key, body in _ENTRY.findall(text):
        fields = dict(
            re.findall(r"^\s*(\w+)\s*=\s*[{\"](.*?)[}\"],?\s*$", body, re.MULTILINE)
        )
        authors = re.split(r"\s+and\s+", fields.get("author", ""))
        names = tuple(_last_name(author) for author in authors if author.strip())
        works.append(Work(key, names, fields.get("year", "")))
    return works


def _last_name(author: str) -> str:
    author = author.strip()
    if author.startswith("{") or "," in author:
        return author.partition(",")[0].strip("{}")
    return author.rpartition(" ")[2]


def badge_table(chapters: list[Chapter], root: Path, repository: str) -> str:
    """Return the table of README.md: each chapter in order, with its Colab badge.

    Args:
        chapters: all chapters.
        root: the repository.
        repository: its address, "https://github.com/owner/repo".
    """
    slug = repository.removeprefix("https://github.com/")
    titles = {chapter.name: chapter.title for chapter in chapters}
    lines = ["| Chapter | |", "|:--|:--|"]
    for name in in_order(root):
        address = f"https://colab.research.google.com/github/{slug}/blob/main/chapters"
        title = re.sub(r"\s*\(\d{4}\)$", "", titles[name])
        lines.append(
            f"| {title} | [![Open in Colab]({_BADGE})]({address}/{name}.ipynb) |"
        )
    return "\n".join([BADGES_BEGIN, *lines, BADGES_END])


def badges_of(readme: str) -> str | None:
    """Return the part of README.md between the two marks, or None without them."""
    begin, end = readme.find(BADGES_BEGIN), readme.find(BADGES_END)
    return readme[begin : end + len(BADGES_END)] if 0 <= begin < end else None
