"""The report of a run as one HTML page that needs no other file: model card, pictures, slowest steps."""

from __future__ import annotations

import base64
import html
import json
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from easytransfer.run.atomic import write_text
from easytransfer.run.card import card_sections, page_files, picture_files, table, title_of
from easytransfer.run.folder import REPORT_FILE, RunFolder
from easytransfer.run.history import read_history
from easytransfer.run.secrets import without_secrets

PAGE_FILE = "report.html"
_MOST_STEPS = 10
# Nothing is loaded and nothing runs: names of classes and files in the page are other people's text.
_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1, h2, h3 {{ line-height: 1.25; overflow-wrap: anywhere; }}
h2 {{ margin-top: 2.2rem; padding-top: .8rem; border-top: 1px solid #8886; }}
nav {{ display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 1rem 0; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }}
td, th {{ border-bottom: 1px solid #8886; padding: .2rem .8rem .2rem 0; text-align: left; }}
pre {{ background: #8882; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
img {{ display: block; max-width: 100%; margin: 1rem 0; background: #fff; }}
summary {{ cursor: pointer; }}
</style>
"""


def write_page(folder: str | os.PathLike[str]) -> Path:
    """Writes `report.html` into a run folder and returns its path.

    Raises:
        ModelError: The folder holds no run.
    """
    run = RunFolder(folder)
    report = run.read_json(REPORT_FILE, default={})
    pictures = picture_files(report)
    sections = card_sections(folder)
    use = sections.pop("use")
    sections.pop("pages", None)  # links of the text are text here
    text = "\n\n".join([*sections.values(), "\n".join(_slowest_steps(run.path)), use])
    path = run.path / PAGE_FILE
    title = f"{run.config.get('model_name') or 'model'}: {run.path.resolve().name}"
    shown = {name: run.path / name for name in pictures}
    write_text(path, html_page(title, text, shown, page_files(report), _all_settings(run.config)))
    return path


def html_page(
    title: str, text: str, pictures: Mapping[str, Path] = MappingProxyType({}), pages: Sequence[str] = (), end: str = ""
) -> str:
    """Returns a page that needs no other file, with links to its sections behind the first heading.

    Args:
        title: Of the window.
        text: CommonMark with tables; HTML and links in it stay text.
        pictures: Files of the pictures that it may show, by the names it has for them.
        pages: Names of pages beside it, which are linked.
        end: HTML behind the text.
    """
    # No HTML and no links from the text, and no pictures but those given.
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink", "html_inline"])
    tokens = reader.parse(text)
    for image in (part for token in tokens for part in token.children or () if part.type == "image"):
        name = str(image.attrs["src"])
        image.attrs["src"] = _embedded(pictures[name]) if name in pictures else ""
    contents = _contents(tokens, pages)
    top = next(at for at, token in enumerate(tokens) if token.type == "heading_close") + 1
    show = partial(reader.renderer.render, options=reader.options, env={})
    return _HEAD.format(title=html.escape(title)) + show(tokens[:top]) + contents + show(tokens[top:]) + end


def _contents(tokens: Sequence[Token], pages: Sequence[str]) -> str:
    """Gives the sections names and returns links to them, and to the pages that lie beside this one."""
    links = []
    for heading, title in pairwise(tokens):
        if heading.type == "heading_open" and heading.tag == "h2":
            heading.attrs["id"] = f"section-{len(links) + 1}"
            links.append(f'<a href="#{heading.attrs["id"]}">{html.escape(title.content)}</a>')
    links += [f'<a href="{html.escape(quote(name))}">{html.escape(title_of(name))}</a>' for name in pages]
    return f"<nav>{' '.join(links)}</nav>\n"


def _all_settings(config: Mapping[str, Any]) -> str:
    text = html.escape(without_secrets(json.dumps(config, indent=2, ensure_ascii=False)))
    return f"<details>\n<summary>All settings</summary>\n<pre><code>{text}</code></pre>\n</details>\n"


def _embedded(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


def _slowest_steps(folder: Path) -> Iterator[str]:
    records = [record for record in read_history(folder) if record["event"] == "step" and record.get("rows_per_s")]
    if len(records) < 2:
        return
    usual = statistics.median(record["rows_per_s"] for record in records)
    slowest = sorted(records, key=lambda record: record["rows_per_s"])[:_MOST_STEPS]
    yield "## Slowest steps"
    yield ""
    yield f"Of {len(records)} intervals, whose median is {usual:,.1f} rows/s."
    yield ""
    yield from table(("up to step", "rows/s", "of the median", "memory, MB"), [_row(r, usual) for r in slowest])


def _row(record: Mapping[str, Any], usual: float) -> tuple[str, ...]:
    rate, memory = record["rows_per_s"], record.get("memory_mb")
    return f"{record['step']:,}", f"{rate:,.1f}", f"{rate / usual:.0%}", "" if memory is None else f"{memory:,.0f}"
