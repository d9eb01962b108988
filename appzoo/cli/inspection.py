"""The verb `inspect`: what tables hold, before anything is trained on them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from appzoo.cli.inspection_text import Inspection, as_json, sections
from appzoo.cli.reader import JobReader
from appzoo.cli.sections import terminal_text, write_sections
from easytransfer.config.flags import Given, split_flags
from easytransfer.config.job import JobConfig
from easytransfer.config.paths import user_path
from easytransfer.data.bad_rows import BadRows
from easytransfer.data.duplicates import DuplicateFinder
from easytransfer.data.inspection import Picture, Pictures, TokenCounter, read_table, texts_of
from easytransfer.data.label_names import label_column
from easytransfer.data.schema import Schema, parse_schema
from easytransfer.data.table import Table, open_table
from easytransfer.errors import ConfigError
from easytransfer.run import log, suspicions

PAGE_FILE = "inspection.html"
_OWN_FLAGS = ("outputDir", "json", "help", "debug")
_PRETRAINED, _TOKENIZER = "pretrainedModel", "model.pretrain_model_name_or_path"
# No text has so many tokens: all of them are counted.
_NO_LIMIT = 1 << 24

HELP = """\
easy_transfer_app inspect TABLE [TABLE...] [--flag=value ...]: What tables hold, before anything is trained on them.

  easy_transfer_app inspect train.csv dev.csv --firstSequence=text --labelName=label --pretrainedModel=minilm-l6-en

The first table is the one to train on, the others are compared with it. The flags of `train` say how tables are read
(--inputSchema, --delimiter, --header, --encoding), what their columns are (--firstSequence, --secondSequence,
--labelName) and how long texts may be (--sequenceLength); a whole `train` command with `inspect` in place of its verb
looks at its tables. Rows are the same where their texts and pictures are; without --firstSequence all columns of texts
and pictures but the label count.

  --pretrainedModel=NAME   Count the tokens of texts with the tokenizer of this model, a ModelZoo name or folder.
  --modelName=NAME         Application, whose settings are then known, such as text_classify_bert.
  --outputDir=DIR          Also write a page, inspection.html, into this folder.
  --json                   One line of JSON with all facts instead of tables.
  --help                   Show this help."""


def inspect(arguments: Sequence[str]) -> str | dict[str, Any]:
    """Reads tables and returns what they hold; writes a page where it is asked to.

    Raises:
        ConfigError: A flag or a column is unknown, or no table is named.
        DataError: A table cannot be read.
        ModelError: The model whose tokenizer is wanted is not on this machine.
        ResourceError: The page cannot be written.
    """
    first_flag = next((at for at, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    given = split_flags(["--help" if word == "-h" else word for word in arguments[first_flag:]])
    own = {flag.name: flag for flag in given if flag.name in (*_OWN_FLAGS, _PRETRAINED)}
    if "help" in own:
        log.print_result(HELP)
        raise SystemExit(0)
    config, named = _config([flag for flag in given if flag.name not in own], own.get(_PRETRAINED))
    specs = [*arguments[:first_flag]]
    specs = specs or [spec for spec in (config.data.train_table, config.data.eval_table) if spec]
    if not specs:
        raise ConfigError("inspect needs a table", fix="type easy_transfer_app inspect TABLE [TABLE...]")
    log.setup_logging(config.runtime.log_format)
    found = inspect_tables(specs, config, named)
    if "outputDir" in own:
        title = f"Inspection: {', '.join(table.name for table in found.tables)}"
        write_sections(user_path(own["outputDir"].text()) / PAGE_FILE, title, sections(found))
    return as_json(found) if "json" in own else terminal_text(sections(found))


def _config(given: Sequence[Given], pretrained: Given | None) -> tuple[JobConfig, str | None]:
    """Returns the settings of a training with these flags, and the model whose tokenizer counts."""
    words = [f"--{flag.name}" if flag.value is None else f"--{flag.name}={flag.value}" for flag in given]
    notes: list[str] = []
    job = JobReader("train", words, notes).read()
    for note in notes:
        log.warn(note)
    model = getattr(job.config.model, "pretrain_model_name_or_path", None)
    return job.config, pretrained.text() if pretrained else model if _TOKENIZER in job.given else None


def inspect_tables(specs: Sequence[str], config: JobConfig, model: str | None) -> Inspection:
    """Reads tables once each, and those with contradicting rows once more up to the rows that are shown.

    Args:
        specs: The tables; the first is the one to train on.
        config: How they are read, which columns mean what, and the length of texts.
        model: Model whose tokenizer counts tokens; None counts none.
    """
    data = config.data
    tables = [_open(spec, config) for spec in specs]
    label = data.label_name or label_column(tables[0].schema.names)
    texts = [name for name in (data.first_sequence, data.second_sequence) if name]
    compared = texts or [
        column.name for column in tables[0].schema if column.type in ("str", "image") and column.name != label
    ]
    for spec, table in zip(specs, tables, strict=True):
        table.require([name for name in (*compared, label) if name], where=f"table {spec}")
    several = getattr(config.model, "multi_label", False) is True
    pictures = _pictures() if any(c.type == "image" for table in tables for c in table.schema) else None
    tokens = _tokens(model, texts, config) if model else None
    with DuplicateFinder() as finder:
        facts = [
            read_table(
                name,
                table,
                number=number,
                finder=finder,
                compared=compared,
                label=label,
                several_labels=several,
                tokens=tokens,
                pictures=pictures,
            )
            for number, (name, table) in enumerate(zip(_shown_names(specs), tables, strict=True))
        ]
        repeats = finder.result()
    for spec, table in zip(specs, tables, strict=True):
        if not table.count.accepted:
            raise table.count.nothing_usable(spec, table.bad_rows.summary())
    found = Inspection(facts, repeats, compared, label, data.sequence_length, model, [], [])
    found.warnings = _warnings(found)
    found.examples = _examples(found, tables)
    return found


def _shown_names(specs: Sequence[str]) -> list[str]:
    """Returns the names of files without their folders, where these are different."""
    short = [os.path.basename(spec.rstrip("/")) or spec for spec in specs]
    return short if len(set(short)) == len(short) else list(specs)


def _open(spec: str, config: JobConfig) -> Table:
    data = config.data
    schema: Schema | None = parse_schema(data.input_schema) if data.input_schema else None
    table = open_table(spec, schema=schema, data=data, bad_rows=BadRows("skip"))
    texts = [name for name in (data.first_sequence, data.second_sequence) if name and name in table.schema]
    table.take_text(dict.fromkeys((name for name in texts if table.schema[name].type != "image"), "words"))
    return table


def _tokens(model: str, texts: Sequence[str], config: JobConfig) -> TokenCounter:
    """Returns what counts the tokens of rows, those of a pair together, as they are before anything is cut."""
    if not texts:
        raise ConfigError("tokens are counted of the column with the text", fix="name it by --firstSequence=COLUMN")
    from modelzoo.hub import obtain
    from modelzoo.loading import load_tokenizer

    zoo = config.runtime.model_zoo_base_path
    obtain(model, zoo, offline=config.runtime.offline)
    lower = {"true": True, "false": False}.get(getattr(config.model, "lower_case", "auto"))
    tokenizer = load_tokenizer(model, zoo, lower_case=lower)

    def count(columns: dict[str, list[Any]]) -> Sequence[int]:
        first, second = (*(columns[name] for name in texts), None)[:2]
        return tokenizer.encode(first, second, max_length=_NO_LIMIT).input_ids.lengths

    return count


def _pictures() -> Pictures:
    """Returns what decodes pictures whole, as training does: a file that ends too early shows only there."""
    import hashlib

    import numpy as np

    from appzoo.image_settings import ImageSettings
    from easytransfer.image.decode import decode, load_image
    from easytransfer.image.files import decode_cell, load_each

    most = ImageSettings.model_fields["max_pixels"].default

    def read(cell: Any, folder: str) -> Picture:
        if isinstance(cell, np.ndarray):
            pixels, content = load_image(cell, channels=3, max_pixels=most), np.ascontiguousarray(cell).tobytes()
            return (*pixels.shape[:2], hashlib.blake2b(content, digest_size=16).digest())
        return decode_cell(
            cell,
            folder,
            lambda content: (
                *decode(content, channels=3, max_pixels=most).shape[:2],
                hashlib.blake2b(content, digest_size=16).digest(),
            ),
        )

    return lambda cells, folder: load_each(cells, lambda cell: read(cell, folder))


def _warnings(found: Inspection) -> list[str]:
    sentences: list[str | None] = []
    first = found.tables[0]
    for number, table in enumerate(found.tables):
        sentences.append(suspicions.conflicting_rows(table.name, found.repeats.within[number].conflicting))
        if number:
            between = found.repeats.between[0, number]
            sentences.append(suspicions.shared_rows(table.name, first.name, between.rows, between.conflicting))
            sentences.append(suspicions.unseen_labels(table.name, first.name, unseen(table.labels, first.labels)))
        rows = table.tokens.counts.total()
        sentences.append(suspicions.cut_texts(table.name, table.tokens.above(found.limit), rows, found.limit))
        texts = [column for name, column in table.columns.items() if name in found.compared and column.is_text]
        sentences.append(suspicions.near_empty_texts(table.name, sum(c.near_empty + c.missing for c in texts)))
        if table.count.rejected:
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in table.reasons.most_common())
            sentences.append(
                f"rows of the {table.name} table that cannot be read: {table.count.rejected:,} ({reasons})"
            )
        for name, column in table.columns.items():
            if column.broken:
                kinds = ", ".join(f"{kind}: {count:,}" for kind, count in column.broken.most_common())
                broken = column.broken.total()
                sentences.append(
                    f"pictures of {table.name}, column {name!r}, that cannot be read: {broken:,} ({kinds})"
                )
    return [sentence for sentence in sentences if sentence]


def unseen(later: Counter[str] | None, earlier: Counter[str] | None) -> dict[str, int]:
    """Returns the labels that `earlier` has no row of, with their rows; nothing where there are too many to tell."""
    if later is None or not earlier or numeric(later) or numeric(earlier):
        return {}
    return {name: count for name, count in later.items() if name not in earlier}


def numeric(labels: Counter[str]) -> bool:
    """Returns whether labels are numbers with fractions, which are no classes."""
    try:
        return any(not float(name).is_integer() for name in labels)
    except (ValueError, OverflowError):
        return False


def _examples(found: Inspection, tables: Sequence[Table]) -> list[tuple[str, str, str]]:
    """Returns rows that contradict each other: where both are, and what they have in common."""
    pairs = [pair for within in found.repeats.within.values() for pair in within.examples]
    pairs += [pair for between in found.repeats.between.values() for pair in between.examples]
    wanted: dict[int, set[int]] = {}
    for (table, row), _ in pairs:
        wanted.setdefault(table, set()).add(row)
    texts = {number: texts_of(tables[number], rows, found.compared) for number, rows in wanted.items()}
    return [
        (*(f"{found.tables[table].name}, row {row + 1:,}" for table, row in pair), texts[pair[0][0]][pair[0][1]])
        for pair in pairs
    ]
