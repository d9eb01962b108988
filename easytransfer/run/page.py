"""The report of a run as one HTML page that needs no other file, and pages of applications in its style.

Style and script of all pages are `page.css` and `page.js`, which the policy of a page names by their hashes: nothing
else is loaded and nothing else runs, as names of classes and files in a page are other people's text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shlex
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from easytransfer.run.folder import EVALUATION_FILE, REPORT_FILE, RUN_FILE, RunFolder
from easytransfer.run.history import read_history
from easytransfer.run.intervals import headline
from easytransfer.run.progress import format_seconds
from easytransfer.run.secrets import without_secrets

PAGE_FILE = "report.html"
# How many hues there are for parts of texts: `<mark class="hue-0">` and so on.
HUES = 8
_MOST_STEPS = 10
_LONGEST_LINE = 60
# Intervals of a training below which the slowest of them say nothing.
_FEWEST_INTERVALS = 20


def source_hash(text: str) -> str:
    """Returns the name of a script or style in a Content-Security-Policy: its SHA-256."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE, _SCRIPT = (Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
POLICY = (
    f"default-src 'none'; img-src data:; style-src {source_hash(_STYLE)}; script-src {source_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'"
)
# A cell of a column of numbers: a number, perhaps a range or with something in brackets, or none.
_NUMBER = re.compile(r"(\*\*)?[-+]?(\d[\d,]*(\.\d+)?|\.\d+)(e[-+]?\d+)?\s?%?( to .*| \(.*\))?(\*\*)?|undefined|")


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
    if pictures:
        sections["pictures"] = "\n\n".join(f"## {title_of(name)}\n\n![{title_of(name)}]({name})" for name in pictures)
    text = "\n\n".join([*sections.values(), "\n".join(_slowest_steps(run.path)), use])
    path = run.path / PAGE_FILE
    page = html_page(
        f"{run.config.get('model_name') or 'model'}: {run.path.resolve().name}",
        text,
        {name: run.path / name for name in pictures},
        page_files(report),
        photos=[name for name in pictures if name not in report.get("pictures", [])],
        lead=_lead(run, report),
        end=_all_settings(run.config),
        kind="report",
    )
    write_text(path, page)
    return path


def html_page(
    title: str,
    text: str,
    pictures: Mapping[str, Path] = MappingProxyType({}),
    pages: Sequence[str] = (),
    *,
    photos: Sequence[str] = (),
    lead: str = "",
    end: str = "",
    kind: str = "page",
) -> str:
    """Returns a page that needs no other file, a card for each section, with links to them behind the first heading.

    Args:
        title: Of the window.
        text: CommonMark with tables; HTML and links in it stay text. It begins with a heading. Columns of numbers are
            set to the right, columns called "... share" get bars, tables without headings become lists of facts.
        pictures: Files of the pictures that it may show, by the names it has for them.
        pages: Names of pages beside it, which are linked.
        photos: Which of the pictures are no charts and keep their colours where the reader wants a dark page.
        lead: HTML between the first heading and the links.
        end: HTML of a last card.
        kind: `report` puts cards beside each other where there is room, `page` below each other, for wide tables.
    """
    # No HTML and no links from the text, and no pictures but those given.
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink", "html_inline"])
    tokens = reader.parse(text)
    for image in (part for token in tokens for part in token.children or () if part.type == "image"):
        name = str(image.attrs["src"])
        image.attrs["src"] = _embedded(pictures[name]) if name in pictures else ""
        image.attrs |= {} if name in photos else {"class": "chart"}
    contents = _contents(tokens, pages)
    for token in tokens:
        if token.type == "fence" and token.info == "bash":
            token.content = _in_lines(token.content)
    tokens = list(_with_tables(tokens))
    show = partial(reader.renderer.render, options=reader.options, env={})
    top = next(at for at, token in enumerate(tokens) if token.type == "heading_close") + 1
    begins = [at for at, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]
    first = begins[0] if begins else len(tokens)
    cards = [_card(show(tokens[at:next_]), tokens[at]) for at, next_ in pairwise([*begins, len(tokens)])]
    before = show(tokens[top:first])
    # A page of one table has no sections.
    cards += [] if cards else [_card(before)]
    cards += [_card(end)] if end else []
    header = f"{show(tokens[:top])}{lead}{contents}{before if begins else ''}"
    return _document(title, header, cards, kind)


def application_page(title: str, lead: str, cards: Iterable[str]) -> str:
    """Returns a page beside the report, which it links, for what is no table of texts: HTML that an application made.

    The policy allows no style but that of `page.css`: `<mark>` with a class `hue-0`, ... is a part of a text, of some
    kind (see `HUES`), `wrong` and `missed` outline it, `found` is a line below; `text` keeps white space.

    Args:
        title: Heading, a text.
        lead: HTML below it.
        cards: HTML of each card.
    """
    link = f'<nav aria-label="Contents"><a href="{PAGE_FILE}">{title_of(PAGE_FILE)}</a></nav>'
    return _document(title, f"<h1>{html.escape(title)}</h1>\n{link}\n{lead}\n", map(_card, cards), "page")


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table that scrolls where it is wider than the page.

    Args:
        header: Headings of the columns, texts.
        rows: HTML of the cells of each row.
    """
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll">\n<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n</div>\n'


def _document(title: str, header: str, cards: Iterable[str], kind: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f'<body class="{kind}">\n<header>\n{header}</header>\n'
        f'<main class="cards">\n{"".join(cards)}</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n'
    )


def _card(content: str, heading: Token | None = None) -> str:
    name = "" if heading is None else f' aria-labelledby="{heading.attrs["id"]}"'
    return f'<section class="card"{name}>\n{content}</section>\n'


def _in_lines(command: str) -> str:
    """Returns a long command line with a line for each flag, which a shell reads as the same."""
    if len(command) <= _LONGEST_LINE:
        return command
    parts, begin = [], 0
    for found in re.finditer(" (?=--)", command):
        try:
            shlex.split(command[: found.start()])
        except ValueError:  # inside of quotes
            continue
        parts.append(command[begin : found.start()])
        begin = found.end()
    return " \\\n  ".join([*parts, command[begin:]])


def _contents(tokens: Sequence[Token], pages: Sequence[str]) -> str:
    """Gives the sections names and returns links to them, and to the pages that lie beside this one."""
    links = []
    for heading, title in pairwise(tokens):
        if heading.type == "heading_open" and heading.tag == "h2":
            heading.attrs["id"] = f"section-{len(links) + 1}"
            links.append(f'<a href="#{heading.attrs["id"]}">{html.escape(title.content)}</a>')
    links += [f'<a href="{html.escape(quote(name))}">{html.escape(title_of(name))}</a>' for name in pages]
    return f'<nav aria-label="Contents">{" ".join(links)}</nav>\n' if links else ""


def _with_tables(tokens: Sequence[Token]) -> Iterator[Token]:
    """Yields the tokens, those of tables as `html_page` describes it."""
    start = None
    for at, token in enumerate(tokens):
        if token.type == "table_open":
            start = at
        elif start is None:
            yield token
        elif token.type == "table_close":
            yield Token("html_block", "", 0, content='<div class="scroll">\n')
            yield from _table(tokens[start : at + 1])
            yield Token("html_block", "", 0, content="</div>\n")
            start = None


def _table(tokens: Sequence[Token]) -> Sequence[Token]:
    """Returns the tokens of one table: numbers to the right, bars of shares, names of facts as headings of rows."""
    cells = [at for at, token in enumerate(tokens) if token.type in ("th_open", "td_open")]
    width = sum(tokens[at].type == "th_open" for at in cells)
    columns = [cells[number::width] for number in range(width)]
    titles = [tokens[column[0] + 1].content for column in columns]
    for title, column in zip(titles, columns, strict=True):
        contents = [tokens[at + 1].content for at in column[1:]]
        if any(contents) and all(map(_NUMBER.fullmatch, contents)):
            for at in column:
                tokens[at].attrs["class"] = "number"
        if title.endswith("share"):
            _add_bars([tokens[at + 1] for at in column[1:]])
        tokens[column[0]].attrs["scope"] = "col"
    if any(titles):
        return tokens
    tokens[0].attrs["class"] = "facts"
    for at in columns[0][1:]:
        closing = next(token for token in tokens[at:] if token.type == "td_close")
        tokens[at].tag = closing.tag = "th"
        tokens[at].attrs = {"scope": "row"}
    body = next(at for at, token in enumerate(tokens) if token.type == "tbody_open")
    return [tokens[0], *tokens[body:]]


def _add_bars(cells: Sequence[Token]) -> None:
    """Puts bars before the percentages of a column, the largest as long as the place for them."""
    shares = [float(cell.content.rstrip("%") or 0) for cell in cells]
    for cell, share in zip(cells, shares, strict=True):
        length = 100 * share / (max(shares) or 1)
        bar = (
            '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="ground" width="100" height="10"/><rect width="{length:.1f}" height="10"/></svg>'
        )
        cell.children = [Token("html_inline", "", 0, content=bar), *(cell.children or ())]


def _lead(run: RunFolder, report: Mapping[str, Any]) -> str:
    """Returns the one number that a reader looks for, with its interval, and what it was measured on."""
    record = run.read_json(RUN_FILE, default={})
    found, data = headline(run.read_json(EVALUATION_FILE, default={}), report), report.get("data", {})
    number = ""
    if found is not None:
        rows = f", {report['rows']:,} evaluation rows" if report.get("rows") else ""
        between = "" if found.low is None else f"95% interval {found.low:.4f} to {found.high:.4f}{rows}"
        number = (
            f'<p class="headline"><span>{html.escape(found.metric)}</span><strong>{found.value:.4f}</strong>'
            f"<span>{between or rows.removeprefix(', ')}</span></p>\n"
        )
    seconds = record.get("wall_time_s")
    facts = {
        "training rows": _count(data.get("train", {}).get("accepted")),
        "evaluation rows": _count(data.get("eval", {}).get("accepted")),
        "steps": _count(report.get("steps")),
        "exported step": _count(report.get("checkpoint_step")),
        "time": None if seconds is None else format_seconds(seconds),
        "ended": (record.get("ended") or "")[:10],
        "EasyTransfer": record.get("easytransfer"),
    }
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(str(value))}</dd></div>" for name, value in facts.items() if value
    )
    listed = f"<dl>{shown}</dl>\n" if shown else ""
    return f'<div class="lead">\n{number}{listed}</div>\n' if number or listed else ""


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _all_settings(config: Mapping[str, Any]) -> str:
    text = html.escape(without_secrets(json.dumps(config, indent=2, ensure_ascii=False)))
    return f"<details>\n<summary>All settings</summary>\n<pre><code>{text}</code></pre>\n</details>\n"


def _embedded(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


def _slowest_steps(folder: Path) -> Iterator[str]:
    records = [record for record in read_history(folder) if record["event"] == "step" and record.get("rows_per_s")]
    if len(records) < _FEWEST_INTERVALS:
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
