"""Tables with headings, as text for a terminal and as a page."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from easytransfer.errors import ResourceError
from easytransfer.run import log
from easytransfer.run.atomic import write_text
from easytransfer.run.card import table
from easytransfer.run.page import html_page

_WIDTH = 120


@dataclass
class Section:
    """A table with a heading: columns whose heading begins with `#` hold numbers."""

    title: str
    heading: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


def terminal_text(sections: Iterable[Section]) -> str:
    """Returns tables for a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=io.StringIO(), width=_WIDTH)
    for section in sections:
        shown = Table(title=Text(section.title), title_justify="left", box=box.SIMPLE_HEAD)
        for name in section.heading:
            side = "right" if name.startswith("#") else "left"
            shown.add_column(Text(name.removeprefix("#")), justify=side, overflow="fold")
        for row in section.rows:
            shown.add_row(*(Text(log.printable(cell.replace("\n", " "))) for cell in row))
        console.print(shown)
        if section.note:
            console.print(Text(f"  {section.note}\n"))
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip("\n").splitlines())


def write_sections(
    path: Path, title: str, sections: Iterable[Section], pictures: Mapping[str, Path] = MappingProxyType({})
) -> None:
    """Writes tables as an HTML page that needs no other file, and says so.

    Args:
        path: Of the page.
        title: Its heading.
        sections: The tables.
        pictures: Files of pictures behind them, by name.

    Raises:
        ResourceError: It cannot be written.
    """
    lines = [f"# {_plain(title)}"]
    for section in sections:
        lines += _lines(section)
    if pictures:
        lines += ["", "## Pictures", "", *(f"![{_plain(name)}]({name})\n" for name in pictures)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, html_page(title, "\n".join(lines), pictures))
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror}", fix="choose another place") from error
    log.say(f"page written to {path}")


def _lines(section: Section) -> Iterator[str]:
    heading: Sequence[str] = [name.removeprefix("#") for name in section.heading]
    yield from ("", f"## {_plain(section.title)}", "")
    yield from table(heading, section.rows)
    yield from (("", section.note) if section.note else ())


def _plain(title: str) -> str:
    # Names of columns and files are other people's text, and a heading is no cell of `table`, which spells them out.
    return "".join(c if c.isalnum() or c.isspace() or not c.isascii() else f"\\{c}" for c in title)
