"""The command `ez_pretrain`: flags and records of the original's script, on the jobs of `text_pretrain`."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import easytransfer
from appzoo import discovery
from appzoo.cli.checks import check_job
from appzoo.cli.main import guarded, run_job
from appzoo.cli.reader import JobReader
from easytransfer.config.flags import Given, split_flags
from easytransfer.config.paths import user_path
from easytransfer.data.app_forms import read_like
from easytransfer.errors import ConfigError, DataError, closest
from easytransfer.run import log
from easytransfer.run.atomic import write_json
from easytransfer.version import VERSION

APPLICATION = "text_pretrain"
STATISTICS = "statistics.json"
RECORDS = "input_ids,input_mask,segment_ids,masked_lm_positions,masked_lm_ids,masked_lm_weights"
LABEL = "next_sentence_labels"
# Of the original; a row is a setting, or what reads the flag elsewhere, and the default, None where there is none.
_TRAIN: dict[str, tuple[str, Any]] = {
    "train_input_fp": ("data.train_table", None),
    "eval_input_fp": ("data.eval_table", None),
    "input_schema": ("", None),
    "input_sequence_length": ("data.sequence_length", None),
    "pretrain_model_name_or_path": ("model.pretrain_model_name_or_path", None),
    "train_batch_size": ("train.batch_size", 128),
    "eval_batch_size": ("train.eval_batch_size", 128),
    "num_epochs": ("train.num_epochs", 1),
    "model_dir": ("checkpoint_dir", None),
    "learning_rate": ("train.learning_rate", 1e-4),
    "num_accumulated_batches": ("train.num_accumulated_batches", 1),
    "distribution_strategy": ("distribution.distribution_strategy", None),
    **{name: ("", None) for name in ("loss", "data_reader", "do_multitaks_pretrain", "num_model_replica")},
    **{name: ("", None) for name in ("model_type", "vocab_fp", "spm_model_fp")},
}
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "factorized_size")
_FIXED = {"optimizer_type": "adam", "weight_decay_ratio": 0, "warmup_ratio": 0.1, "num_eval_steps": 1000}
_PREPROCESS: dict[str, tuple[str, Any]] = {
    **{name: ("", None) for name in ("input_dir", "output_dir", "num_threads", "data_format")},
    **{name: ("", None) for name in ("tokenizer", "vocab_fp", "spm_model_fp", "do_chinese_whole_word_mask")},
    **{name: ("", None) for name in ("random_next_sentence", "dupe_factor")},
    "pretrain_model_name_or_path": ("model.pretrain_model_name_or_path", None),
    "do_whole_word_mask": ("model.whole_word", True),
    "max_seq_length": ("data.sequence_length", 512),
    "max_predictions_per_seq": ("model.max_predictions", 20),
    "masked_lm_prob": ("model.mlm_probability", 0.15),
    "short_seq_prob": ("model.short_passages", 0.1),
    "word_list": ("model.word_list", None),
    "seed": ("", 12345),
}
# All flags of the original.
FLAGS = {*_TRAIN, *_SIZES, *_PREPROCESS}
_LOSSES = {"mlm": "none", "mlm+nsp": "nsp", "mlm+sop": "sop"}
# Plain text by its ending in the original, and here.
_TEXTS = {".txt": ".text", ".txt.gz": ".text.gz"}
_FORMATS = ("segment_pair", "full_sentences")
_HELP = """\
ez_pretrain: records of plain text, and pre-training on them, by the flags of the original EasyTransfer.

  ez_pretrain --mode=preprocess --input_dir=texts --output_dir=records --vocab_fp=vocab.txt --data_format=segment_pair
  ez_pretrain --mode=train_and_evaluate --train_input_fp=train.list_tfrecord --eval_input_fp=dev.list_tfrecord \\
      --model_dir=run --vocab_fp=vocab.txt --loss=mlm+nsp --model_type=bert --input_sequence_length=128 ...

The flags are listed in appzoo/text_pretrain/README.md; those of `easy_transfer_app` are accepted, too. What is new:
`easy_transfer_app train --modelName text_pretrain` trains on plain text itself and hides other words in every step."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns the exit code; results go to stdout, everything else to stderr.

    Args:
        argv: Arguments without the program name; those of the process when None.
    """
    return guarded(run, argv)


def run(arguments: list[str]) -> int:
    """Runs one command line; raises what goes wrong."""
    given = split_flags(["--help" if argument == "-h" else argument for argument in arguments])
    options = {flag.name: flag for flag in given}
    if "version" in options or "help" in options or not given:
        log.print_result(easytransfer.__version__ if "version" in options else _HELP)
        return 0 if given else ConfigError.exit_code
    mode = options["mode"].text() if "mode" in options else None
    if mode in ("train", "train_and_evaluate"):
        if "config" in options:
            return run_job("train", [f"--modelName={APPLICATION}", *(_word(f) for f in given if f.name != "mode")])
        return run_job("train", train_words(Flags(given, {**_TRAIN, **{name: ("", None) for name in _SIZES}})))
    if mode == "preprocess":
        with log.results_only_stdout() as stdout:
            log.print_result(preprocess(Flags(given, _PREPROCESS)), stdout)
        return 0
    raise ConfigError(
        "unknown mode", received=mode, accepted=("preprocess", "train", "train_and_evaluate"),
        fix="a trained run is evaluated by `easy_transfer_app evaluate --checkpointPath RUN --inputTable TABLE`",
    )  # fmt: skip


class Flags:
    """Flags of the original, and those of jobs behind them.

    Args:
        given: As typed.
        known: Those of the original in this mode: the setting each stands for, and its default.

    Attributes:
        others: Flags of jobs, as words of a command line.

    Raises:
        ConfigError: One is given twice.
    """

    def __init__(self, given: Sequence[Given], known: Mapping[str, tuple[str, Any]]) -> None:
        self._known, self._values = known, {}
        self.others: list[str] = []
        for flag in given:
            if flag.name == "mode":
                continue
            if flag.name not in known:
                self._check_near(flag.name)
                self.others.append(_word(flag))
            elif flag.name in self._values:
                raise ConfigError(f"--{flag.name} is given twice")
            else:
                self._values[flag.name] = "true" if flag.value is None else flag.value

    def _check_near(self, name: str) -> None:
        """Suggests a flag of the original for a misspelt one: jobs would suggest their own."""
        near = closest(name, self._known)
        if near and name not in self._known and "_" in name and name.islower() and not _is_of_jobs(name):
            raise ConfigError(f"unknown flag --{name}", fix=f"did you mean --{near[0]}?")

    def get(self, name: str, default: str | None = None) -> str | None:
        """Returns the text of a flag, `default` where it is not given or empty."""
        return self._values.get(name) or default

    def need(self, name: str, accepted: Sequence[str] = ()) -> str:
        """Returns the text of a flag that must be there, one of `accepted` if any.

        Raises:
            ConfigError: It is not.
        """
        value = self.get(name)
        if value is None or (accepted and value not in accepted):
            what = f"--{name} is missing" if value is None else f"wrong value for --{name}"
            raise ConfigError(what, received=value, accepted=accepted or None)
        return value

    def truth(self, name: str, default: bool = False) -> bool:
        """Returns a flag that is true or false."""
        return self._read(name, str(default), {"true": True, "false": False}.__getitem__, "true or false")

    def number(self, name: str, default: int | None = None) -> int | None:
        """Returns a whole number above 0, `default` where it is not given."""
        value = self._read(name, str(default or 0), int, "a whole number above 0")
        if value < 1 and name in self._values:
            raise ConfigError(f"wrong value for --{name}", received=value, accepted="a whole number above 0")
        return value or None

    def _read(self, name: str, default: str, kind: Callable[[str], Any], accepted: str) -> Any:
        text = self.get(name, default)
        try:
            return kind(str(text).lower())
        except (ValueError, KeyError):
            raise ConfigError(f"wrong value for --{name}", received=text, accepted=accepted) from None

    def words(self) -> list[str]:
        """Returns the settings that flags stand for, those of the original's defaults too."""
        values = {name: self.get(name, default) for name, (path, default) in self._known.items() if path}
        return [f"--set={self._known[name][0]}={value}" for name, value in values.items() if value is not None]


def _is_of_jobs(name: str) -> bool:
    from easytransfer.config.flags import FlagTable
    from easytransfer.config.job import JobConfig

    return FlagTable(JobConfig).find(name) is not None


def _word(flag: Given) -> str:
    return f"--{flag.name}" if flag.value is None else f"--{flag.name}={flag.value}"


# Training --------------------------------------------------------------------------------------------------------


def train_words(flags: Flags) -> list[str]:
    """Returns the words of a training: of a model that is there, or of one made of a vocabulary and sizes.

    That one is written beside the run, into `<model_dir>.start`.

    Raises:
        ConfigError: A flag is missing or wrong, or what it asks for is not done here.
    """
    loss = flags.need("loss", tuple(_LOSSES))
    if flags.get("data_reader", "tfrecord") != "tfrecord":
        raise ConfigError("--data_reader reads tables of a service", received=flags.get("data_reader"),
                          accepted="tfrecord", fix="export the table to TFRecord and name that file")  # fmt: skip
    if flags.truth("do_multitaks_pretrain"):
        raise ConfigError("--do_multitaks_pretrain is not done here", fix="train the second task with text_classify")
    if (flags.number("num_model_replica") or 1) > 1:
        log.warn(
            "--num_model_replica has no meaning here and is ignored; --workerCount says how many workers there are"
        )
    words = [f"--modelName={APPLICATION}", *flags.words(), f"--set=model.pair_task={_LOSSES[loss]}"]
    words += [f"--set=train.{name}={value}" for name, value in _FIXED.items()]
    schema = flags.get("input_schema")
    if schema is not None:
        columns = [column for column in schema.split(",") if loss != "mlm" or not column.strip().startswith(LABEL)]
        words.append(f"--inputSchema={','.join(columns)}")
    if flags.get("pretrain_model_name_or_path") is None:
        words += [f"--set=model.pretrain_model_name_or_path={_start(flags)}", "--set=model.from_scratch=true"]
    return [*words, *flags.others]


def _start(flags: Flags) -> Path:
    """Writes vocabulary and sizes of a model without weights, and returns the folder."""
    from modelzoo.making import with_vocabulary

    family = flags.need("model_type")
    vocabulary = flags.get("spm_model_fp") if family == "albert" else flags.need("vocab_fp")
    if vocabulary is None:
        raise ConfigError("--spm_model_fp is missing", fix="name the SentencePiece model of the ALBERT")
    sizes = {name: flags.number(name) for name in _SIZES}
    missing = [name for name in _SIZES[:4] if sizes[name] is None]
    if missing:
        raise ConfigError(
            f"--{missing[0]} is missing", fix="give the sizes of the network, or --pretrain_model_name_or_path"
        )
    sizes["embedding_size"] = sizes.pop("factorized_size")
    if family == "bert" and sizes["embedding_size"] not in (None, sizes["hidden_size"]):
        raise ConfigError("--factorized_size is for --model_type=albert", received=sizes["embedding_size"])
    folder = user_path(flags.need("model_dir").rstrip("/") + ".start")
    made = with_vocabulary(folder, user_path(vocabulary), family, overwrite=True, **sizes)
    log.say(f"vocabulary and sizes of the model are written to {made['folder']}")
    return Path(folder)


# Records ---------------------------------------------------------------------------------------------------------


def preprocess(flags: Flags) -> dict[str, Any]:
    """Writes a TFRecord file for every text file and copy of `--input_dir`, and `statistics.json` beside them.

    A copy is another pass over a file with the next seed: other passages, pairs and hidden words. Files that an earlier
    start has finished are left as they are.

    Returns:
        The folder, and the sum of the statistics.

    Raises:
        ConfigError: A flag is missing or wrong, or the folder holds records of other settings.
        DataError: There is no text file.
    """
    form = flags.need("data_format", _FORMATS)
    source, target = user_path(flags.need("input_dir")), user_path(flags.need("output_dir"))
    discovery.config_class(APPLICATION)  # which makes its tables known
    texts = sorted(
        path for path in source.glob("*") if path.name.endswith((*_TEXTS, *_TEXTS.values())) and path.is_file()
    )
    if not texts:
        raise DataError(f"no text file in {source}", accepted="names that end in .txt or .text")
    pairs = "none" if form == "full_sentences" else "nsp" if flags.truth("random_next_sentence") else "sop"
    if flags.number("num_threads") is not None:
        log.say("--num_threads has no meaning here: a file is read by all cores")
    words = [f"--modelName={APPLICATION}", *flags.words(), f"--set=model.pair_task={pairs}"]
    words.append(f"--outputSchema={RECORDS if pairs == 'none' else f'{RECORDS},{LABEL}'}")
    if flags.truth("do_chinese_whole_word_mask") and flags.get("word_list") is None:
        words.append("--set=model.words_by_blanks=true")
        log.say("Chinese words are what blanks in the texts separate; --word_list=FILE names them instead")
    if form == "full_sentences":
        words.append("--set=model.short_passages=0")
    copies, seed = flags.number("dupe_factor", 40) or 40, flags.number("seed", 12345) or 12345
    with _tokenizer(flags, form) as model, read_like(_TEXTS):
        words += [] if model is None else [f"--set=model.pretrain_model_name_or_path={model}"]
        known = {"version": VERSION, "settings": [word for word in words if not word.endswith(str(model))]}
        known["vocabulary"] = flags.get("vocab_fp") or flags.get("spm_model_fp")
        records = Records(target, known, "--overwrite" in flags.others)
        for text in texts:
            for copy in range(copies):
                name = f"{text.name.partition('.')[0]}{f'-{copy:02d}' if copies > 1 else ''}.tfrecord"
                if not records.has(name, text):
                    tables = [
                        f"--inputTable={text}",
                        f"--outputTable={target / name}",
                        f"--set=runtime.seed={seed + copy}",
                    ]
                    records.add(name, text, _preprocessed([*words, *tables, *flags.others]))
    return {"mode": "preprocess", "output": str(target), "files": len(records.files), **records.total}


def _preprocessed(words: list[str]) -> dict[str, Any]:
    """Writes one file."""
    notes: list[str] = []
    job = JobReader("preprocess", words, notes).read()
    for note in notes:
        log.warn(note)
    if job.config.distribution.workers() > 1:
        raise ConfigError("preprocess of ez_pretrain is one process", fix="start one for every folder of texts")
    check_job(job)
    from appzoo import jobs

    return jobs.preprocess(job.config)


@contextmanager
def _tokenizer(flags: Flags, form: str) -> Iterator[Path | None]:
    """Gives a model folder with the vocabulary that flags name; None where they name a model."""
    if flags.get("pretrain_model_name_or_path") is not None:
        yield None
        return
    from modelzoo.making import with_vocabulary

    is_pieces = flags.get("tokenizer", "wordpiece") == "sentencepiece"
    if not is_pieces and flags.get("tokenizer", "wordpiece") != "wordpiece":
        flags.need("tokenizer", ("wordpiece", "sentencepiece"))
    vocabulary = user_path(flags.need("spm_model_fp" if is_pieces else "vocab_fp"))
    positions = max(flags.number("max_seq_length", 512) or 512, 512)
    with tempfile.TemporaryDirectory(prefix="easytransfer-vocabulary-") as folder:
        model = Path(folder, "model")
        sizes = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 8}
        family = "albert" if is_pieces else "bert"
        with_vocabulary(model, vocabulary, family, max_position_embeddings=positions, **sizes)
        yield model


class Records:
    """Record files of a folder with what is told of them in `statistics.json`.

    Args:
        folder: Made if absent.
        known: What the records depend on beside their texts.
        overwrite: Whether records of other settings may be replaced.

    Attributes:
        files: Statistics by name of the file.

    Raises:
        ConfigError: Records of other settings are there.
    """

    def __init__(self, folder: Path, known: dict[str, Any], overwrite: bool) -> None:
        self._path, self._known = folder / STATISTICS, json.loads(json.dumps(known))
        folder.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, dict[str, Any]] = {}
        if self._path.is_file() and not overwrite:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            if stored["made_by"] != self._known:
                raise ConfigError(
                    f"{folder} has records of other settings", fix="choose another --output_dir, or give --overwrite"
                )
            self.files = stored["files"]

    def has(self, name: str, text: Path) -> bool:
        """Returns whether a file is there, made of this text as it is now."""
        found = self.files.get(name)
        return found is not None and found["text"] == _stamp(text) and (self._path.parent / name).is_file()

    def add(self, name: str, text: Path, result: Mapping[str, Any]) -> None:
        """Notes a file that was written."""
        counts = result["text"]
        self.files[name] = {
            "text": _stamp(text),
            "documents": counts["documents"],
            "passages": result["written"],
            "rejected": result["rejected"],
            **{key: counts[key] for key in ("tokens", "unknown", "truncated", "places")},
            "average_fill": round(counts["tokens"] / counts["places"], 4),
        }
        write_json(self._path, {"made_by": self._known, "files": self.files, "total": self.total})

    @property
    def total(self) -> dict[str, Any]:
        """The sum over all files."""
        sums: Counter[str] = Counter()
        for facts in self.files.values():
            sums.update({key: value for key, value in facts.items() if isinstance(value, int)})
        return {**sums, "average_fill": round(sums["tokens"] / max(sums["places"], 1), 4)}


def _stamp(text: Path) -> list[Any]:
    status = text.stat()
    return [str(text), status.st_size, status.st_mtime_ns]
