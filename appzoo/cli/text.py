"""Help texts, generated from the configuration fields."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import replace

from appzoo.discovery import commands
from easytransfer.config.fields import MODE_LETTERS, Setting, section_texts, settings_of
from easytransfer.config.schema import MODES, ConfigModel

VERBS = {
    "train": "Fine-tune an application on a table and export it.",
    "tune": "Search settings: many trainings of one application, pruned, resumed, in parallel; the best as a file.",
    "experiment": "Train the arms of an application with several seeds, and report metrics, size and time of each.",
    "evaluate": "Metrics of a trained model on a labelled table.",
    "predict": "Write predictions for a table.",
    "search": "The nearest rows of a table of vectors, for texts or other vectors.",
    "export": "Write a SavedModel for serving; `export validate FOLDER` checks one in a fresh process.",
    "serve": "Answer requests for exported models over REST and gRPC.",
    "preprocess": "Write a table of token ids.",
    "inspect": "Show what tables hold, before anything is trained on them.",
    "apps": "List the applications and their variants.",
    "zoo": "List, show, verify, import, export, fetch and make pre-trained models.",
    "compare": "Settings that differ between runs, metrics with intervals, and tests on the same rows.",
    "profile": "Parameters, multiply-accumulates and latency of an image network.",
    "config": "Print the full default configuration of an application or its JSON Schema, or check a file.",
    "examples": "Write the sample tables and configurations into a folder.",
    "new-app": "Write the folder of a new application, which trains at once.",
    "check": "Say which parts work on this machine, and how to get the others.",
}

# Flags of the command itself, with their help; every other flag comes from a configuration field.
OWN_FLAGS = {
    "mode": ("MODE", "Same as the verb: " + ", ".join(MODES) + "."),
    "config": ("FILE", "YAML or JSON configuration; a JSON file of the original EasyTransfer is translated."),
    "set": ("KEY=VALUE", "One value by dotted path, such as train.batch_size=16; may be repeated."),
    "advancedParameters": ("TEXT", "Further keys: key=value pairs, a JSON object, or @file.json."),
    "configDump": ("[FILE]", "Write the resolved configuration as JSON (to FILE or stdout) and exit."),
    "debug": ("", "Show the traceback of an error."),
    "help": ("", "Show this help."),
    "version": ("", "Show the version."),
}

# What a verb is mostly typed with, by path, in the order of its help; the help opens with these.
USUAL = {
    "train": (
        "model_name",
        "data.input_table",
        "data.eval_table",
        "data.first_sequence",
        "data.label_name",
        "checkpoint_dir",
        "train.num_epochs",
        "train.batch_size",
    ),
    "evaluate": (
        "checkpoint_path",
        "data.input_table",
        "data.first_sequence",
        "data.second_sequence",
        "data.label_name",
        "train.batch_size",
        "data.bad_rows",
        "runtime.dry_run",
    ),
    "predict": (
        "checkpoint_path",
        "data.input_table",
        "data.output_table",
        "data.output_schema",
        "data.append_cols",
        "train.batch_size",
        "data.bad_rows",
        "runtime.overwrite",
    ),
    "export": (
        "checkpoint_path",
        "export.export_dir_base",
        "export.export_type",
        "export.variants",
        "data.input_table",
        "export.flat",
        "export.max_batch_size",
        "runtime.overwrite",
    ),
    "preprocess": (
        "model_name",
        "data.input_table",
        "data.output_table",
        "data.first_sequence",
        "data.second_sequence",
        "data.label_name",
        "data.output_schema",
        "data.sequence_length",
    ),
    "serve": (
        "model_dir",
        "host",
        "rest_port",
        "grpc_port",
        "token_file",
        "tls_cert",
        "tls_key",
        "max_request_mb",
    ),
    "ez_bert_feat": (
        "model_name",
        "data.input_table",
        "data.output_table",
        "data.first_sequence",
        "data.output_schema",
        "data.append_cols",
        "data.sequence_length",
        "features.batch_size",
    ),
}

OVERVIEW = """\
EasyTransfer: fine-tune a pre-trained model on a table, evaluate, predict and export it.

  easy_transfer_app train --config=job.yaml --set train.batch_size=16
  easy_transfer_app train --modelName=text_classify_bert --inputTable=train.csv \\
      --firstSequence=text --labelName=label --checkpointDir=run
  easy_transfer_app --mode=predict ...        the same as easy_transfer_app predict ...
"""

MORE = """\
easy_transfer_app VERB --help lists the flags of one verb; with --modelName also the keys of that application.
Every flag is also accepted in snake_case, and a true|false flag may stand without a value.
Exit codes: 0 success, 2 flags or configuration, 3 data, 4 model or checkpoint, 5 disk, memory or device,
6 interrupted and resumable, 1 unexpected."""

FEATURES_MORE = """\
outputSchema: pool_output, first_token_output, mean_output (over the tokens of the row) and all_hidden_outputs (one
vector for each token); default pool_output,first_token_output,all_hidden_outputs, of a model of two towers pool_output
alone, which it compares. Such a model writes each for the first text and, with _b, for the second. The name of
outputTable decides the form: .jsonl, .parquet, .tfrecord, a name that ends in / is a folder of .npy files, others are
TSV with commas in vectors and semicolons between tokens.
A killed job goes on when it is started again. Worker w of n (--workerCount=n --task_index=w) writes
<outputTable>.part-<w>-of-<n>; the same command with --merge joins them.
Further flags: --config FILE, --set KEY=VALUE, --configDump [FILE], --debug, --version."""
TUNE_HELP = """\
easy_transfer_app tune: {text}

  easy_transfer_app tune --config=job.yaml --checkpointDir=runs/study --trials=12 \\
      --search train.learning_rate=1e-5..1e-4:log model.dropout=0..0.3 train.batch_size=16,32

  --search SPEC...      What is searched: {form};
                        or a .yaml file with such entries. May be repeated.
  --trials N            Trials in all, default 20; the same command with more goes on.
  --parallel K          Trials that run at the same time on this machine, default 1.
  --sampler NAME        {samplers}; default tpe.
  --pruner NAME         {pruners}; default median: a trial whose evaluations are worse than the median of earlier
                        trials ends.
  --startup N           Trials drawn at random first, and complete ones before any is pruned; default 5.

Every flag of train but --configDump belongs to all trials: see easy_transfer_app train --help. checkpointDir is the
folder of the study; each trial is a run folder in its `trials`. --dryRun checks all and starts none. A killed study
goes on with the same command."""
EXPERIMENT_HELP = """\
easy_transfer_app experiment: {text}

  easy_transfer_app experiment --config=job.yaml --outputDir=runs/experiment --seeds=5

  --outputDir DIR       Folder of the experiment; required. Each training is a run folder in it, ARM-SEED.
  --seeds N             Seeds of each arm, from --seed on; default {seeds}.
  --arms A,B,...        Which arms, the one that others are compared with first. Default: the baselines of the
                        application, and what the configuration says. An application without arms has one training.

Every flag of train but --checkpointDir and --configDump belongs to all trainings: see easy_transfer_app train --help.
--dryRun checks all arms and starts none. A killed experiment goes on with the same command; more seeds and other arms
are added to what is there."""
SERVING_MORE = """\
MODEL_DIR is a folder of models, with or without models.config, one model, or one version of it; new versions are
found while it runs. Addresses are printed on stdout as one line of JSON once the models can be asked.
Further flags: --config FILE, --set KEY=VALUE, --debug."""
# Settings of tables that mean nothing for vectors.
NOT_OF_FEATURES = ("label_name", "label_enumerate_values", "enable_xla")


def help_text(config_class: type[ConfigModel], mode: str | None = None) -> str:
    """Returns the help: of one mode, or of all with the modes each flag is for.

    Args:
        config_class: Configuration model whose fields are listed.
        mode: One of the five modes, or None for all.
    """
    width = min(shutil.get_terminal_size((110, 24)).columns, 120)
    settings = [item for item in settings_of(config_class) if mode is None or item.applies(mode)]
    lines = [f"easy_transfer_app {mode}: {VERBS[mode]}"] if mode else [OVERVIEW, "Verbs"]
    if mode is None:
        lines += verb_lines()
    usual = USUAL[mode] if mode else ()
    lines += _usual_lines(settings, usual, mode, width)
    lines += ["", "Command"]
    lines += [f"  --{name + (' ' + form if form else ''):<34}{text}" for name, (form, text) in OWN_FLAGS.items()]
    texts = section_texts(config_class)
    lines += _flag_lines(config_class, _others(settings, usual), mode, width)
    keys = [item for item in settings if not item.flag]
    lines += ["", "Keys of --advancedParameters (also --set SECTION.KEY=VALUE)"]
    for title, group in _groups(keys):
        lines += ["", f"  {texts[title].rstrip('.')} ({title})"]
        lines += [line for item in group for line in _entry("  " + item.name, item, mode, width)]
    return "\n".join([*lines, "", MORE])


def verb_lines() -> list[str]:
    """Returns a line for each verb, those that applications bring behind the others."""
    own = {verb: (command.__doc__ or "").partition("\n")[0] for verb, command in commands().items()}
    return [f"  {verb:<12}{text}" for verb, text in {**VERBS, **own}.items()]


def serving_help(config_class: type[ConfigModel]) -> str:
    """Returns the help of `serve`."""
    width = min(shutil.get_terminal_size((110, 24)).columns, 120)
    settings, usual = settings_of(config_class), USUAL["serve"]
    lines = [f"easy_transfer_app serve MODEL_DIR: {VERBS['serve']}", *_usual_lines(settings, usual, "serve", width)]
    return "\n".join([*lines, *_flag_lines(config_class, _others(settings, usual), "serve", width), "", SERVING_MORE])


def features_help(config_class: type[ConfigModel], mode: str, required: Collection[str]) -> str:
    """Returns the help of `ez_bert_feat`; `required` are the paths of the settings that must be given."""
    width = min(shutil.get_terminal_size((110, 24)).columns, 120)
    settings = [item for item in settings_of(config_class) if item.applies(mode) and item.name not in NOT_OF_FEATURES]
    letter = MODE_LETTERS[mode]
    settings = [replace(item, required=letter * (item.path in required), unless="") for item in settings]
    usual = USUAL["ez_bert_feat"]
    lines = [f"ez_bert_feat: {section_texts(config_class)['']}", *_usual_lines(settings, usual, mode, width)]
    return "\n".join([*lines, *_flag_lines(config_class, _others(settings, usual), mode, width), "", FEATURES_MORE])


def _usual_lines(settings: Sequence[Setting], usual: Sequence[str], mode: str | None, width: int) -> list[str]:
    """Returns the lines of the flags that a verb is mostly typed with."""
    by_path = {item.path: item for item in settings}
    entries = [_entry(f"--{by_path[path].flag}", by_path[path], mode, width) for path in usual]
    return ["", "Usual flags", *(line for entry in entries for line in entry)] if entries else []


def _others(settings: Sequence[Setting], usual: Sequence[str]) -> list[Setting]:
    return [item for item in settings if item.path not in usual]


def _flag_lines(
    config_class: type[ConfigModel], settings: Sequence[Setting], mode: str | None, width: int
) -> list[str]:
    """Returns the lines of all settings that have a flag, by section."""
    texts, lines = section_texts(config_class), []
    for title, group in _groups([item for item in settings if item.flag]):
        lines += ["", f"{texts[title].rstrip('.')} ({title})" if title else "Job"]
        lines += [line for item in group for line in _entry(f"--{item.flag}", item, mode, width)]
    return lines


def _groups(settings: Sequence[Setting]) -> list[tuple[str, list[Setting]]]:
    """Groups settings by section, in order of appearance."""
    groups: dict[str, list[Setting]] = {}
    for item in settings:
        groups.setdefault(item.section, []).append(item)
    return list(groups.items())


def _entry(name: str, item: Setting, mode: str | None, width: int) -> list[str]:
    """Returns the lines of one setting: name, type and default, then its sentence."""
    default = "" if item.default is None else f"default {_shown(item.default)}"
    modes = "" if mode else "modes " + ", ".join(word for word, letter in MODE_LETTERS.items() if letter in item.modes)
    needed = [word for word, letter in MODE_LETTERS.items() if letter in item.required]
    required = (
        ("required" if mode in needed else "") if mode else ("required in " + ", ".join(needed) if needed else "")
    )
    required += f" unless {item.unless}" if required and item.unless else ""
    facts = "; ".join(fact for fact in (item.kind, default, required, modes) if fact)
    others = [alias for alias in item.names[1:] if alias != item.name]
    dashes = "--" if item.flag else ""
    text = item.text + (f" Also: {', '.join(dashes + other for other in others)}." if others else "")
    indent = " " * 8
    return [f"  {name:<35} {facts}", *textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) and not value.isprintable() else str(value)
