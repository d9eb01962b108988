"""Hooks of mkdocs: texts that lie beside the code become pages, and links between files become links between pages."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Page by file, where its name is not that of the file.
_SINGLE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:)([^)\s#]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^( *```.*?^ *```)", re.MULTILINE | re.DOTALL)


def _pages() -> dict[str, str]:
    """Returns the page of every text of the repository that is one, by its path."""
    found = {f"docs/{path.relative_to(ROOT / 'docs').as_posix()}" for path in (ROOT / "docs").rglob("*.md")}
    pages = {path: path.removeprefix("docs/") for path in found} | _SINGLE
    for path in [*ROOT.glob("appzoo/*/README.md"), *ROOT.glob("modelzoo/*/README.md")]:
        name = path.parent.relative_to(ROOT).as_posix()
        pages[f"{name}/README.md"] = f"{name}.md"
    return pages


def on_config(config: Any) -> Any:
    """Lists the applications and the families of models in the navigation, which mkdocs wants to know of all pages."""
    for title, room in (("Applications", "appzoo"), ("Models", "modelzoo")):
        pages = sorted(page for page in _pages().values() if page.startswith(f"{room}/"))
        config.nav.insert(2, {title: [{_title(page): page} for page in pages]})
    return config


def _title(page: str) -> str:
    return Path(page).stem.replace("_", " ")


def on_files(files: Files, config: Any) -> Files:
    """Adds the texts that lie beside the code."""
    for path, page in _pages().items():
        if not path.startswith("docs/"):
            files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Turns links to files into links to pages; what is no page loses its link and keeps its text."""
    pages = _pages()
    path = next(path for path, name in pages.items() if name == page.file.src_uri)

    def changed(link: re.Match[str]) -> str:
        picture, text, target, anchor = link.groups(default="")
        if not target:
            return link[0]
        wanted = os.path.normpath(os.path.join(os.path.dirname(path), target))
        found = pages.get(wanted) or pages.get(f"{wanted}/README.md")
        if found is None:
            if not (ROOT / wanted).exists():
                raise ValueError(f"{path} has a link to {target}, which is not there")
            return f"`{wanted}`" if picture else text
        return f"[{text}]({os.path.relpath(found, os.path.dirname(page.file.src_uri) or '.')}{anchor})"

    parts = _FENCE.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(changed, part) for number, part in enumerate(parts))


class Examples(griffe.Extension):
    """Has the `Example:` of a docstring read as griffe reads `Examples:`, which is code and no paragraph."""

    def on_object(self, *, obj: griffe.Object, **unused: Any) -> None:
        """Renames the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
