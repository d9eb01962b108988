"""The job configuration shared by every application: what the command line, YAML files and Python all fill.

An application subclasses `JobConfig` and replaces the type of `model` by its own section.
Field names are the snake_case of the original EasyTransfer flags; the flag is the camelCase of the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from easytransfer.config.encoding import encoding_name
from easytransfer.config.schema import ConfigModel, setting
from easytransfer.config.tracking import TrackingConfig
from easytransfer.errors import ConfigError

# How an export keeps its weights.
WeightType = Literal["float32", "float16", "int8"]
# The label list of a regression.
NO_CLASSES = "none"
Variant = Literal["float32", "float16", "int8", "xla", "litert", "litert-int8"]


_PAIR = "--inputTable names it"
# Share of the rows that is held out for evaluation.
HELD_OUT_SHARE = 0.1


class DataConfig(ConfigModel):
    """Tables and their columns."""

    train_table: str | None = setting(
        None, "Training table: file, glob or directory.", modes="T", required="T", unless=_PAIR, path="list"
    )
    eval_table: str | None = setting(
        None,
        "Table evaluated during training; without one, rows of the training table are held out for it.",
        modes="T",
        path="list",
    )
    eval_share: float = setting(
        HELD_OUT_SHARE,
        "Share of the training table, of each of its classes, that is held out where there is no evalTable.",
        modes="T",
        gt=0,
        lt=1,
    )
    input_table: str | None = setting(
        None,
        "Input table; in train the training table, or the pair `train,eval`; in export a labelled one, to compare "
        "weights on.",
        aliases=("tables",),
        modes="TEPXS",
        required="EPS",
        path="list",
    )
    output_table: str | None = setting(
        None,
        "Where predicted or preprocessed rows are written.",
        aliases=("outputs",),
        modes="PS",
        required="PS",
        path="one",
    )
    input_schema: str | None = setting(
        None,
        "Column declaration `name:type:length,...` with types int, float, str, base64, image.",
        modes="TEPS",
        required="T",
        unless="the tables name their columns",
    )
    first_sequence: str | None = setting(
        None, "Column with the text.", modes="TEPS", required="T", unless="tables hold token ids or pictures"
    )
    second_sequence: str | None = setting(None, "Column with the second text of a pair.", modes="TEPS")
    label_name: str | None = setting(
        None, "Label column.", modes="TEPS", required="T", unless="called label, or tables hold token ids or pictures"
    )
    label_enumerate_values: str | None = setting(
        None,
        "Class names: comma list, a file with one per line, or `auto`; `none` predicts numbers. Default: what the "
        "training table has, where it is clear.",
        modes="TEPS",
        path="one",
    )
    sequence_length: int = setting(128, "Total tokens after packing.", modes="TPXS", ge=3)
    slice_columns: str | None = setting(
        None,
        "Comma list of columns of the evaluation table, such as the source of a row: the report has the results of the "
        "rows of each value.",
        modes="T",
    )
    append_cols: str | None = setting(None, "Comma list of input columns copied to the output.", modes="PS")
    output_schema: str | None = setting(
        None,
        "Comma list of columns to write; default all. Preprocess takes bert_finetune, bert_predict and bert_pretrain "
        "for the usual ones.",
        modes="PXS",
    )
    tokenizer_name_or_path: str | None = setting(
        None, "Tokenizer of preprocess; default that of the pre-trained model.", advanced=True, modes="S", path="one"
    )
    max_predictions_per_seq: int = setting(
        20, "Most tokens of a row hidden for masked language modelling.", advanced=True, modes="S", ge=1
    )
    masked_lm_prob: float = setting(
        0.15, "Share of the tokens of a row hidden for masked language modelling.", advanced=True, modes="S", gt=0, lt=1
    )
    delimiter: str = setting(
        "\t", "Field separator of text tables; `\\t` and `,` are common. A .csv with a header says its own."
    )
    encoding: str = setting(
        "auto",
        "Encoding of text tables, such as cp1252; auto is UTF-8, or UTF-16 and UTF-32 where their mark comes first.",
    )
    header: Literal["none", "skip", "names"] = setting(
        "none",
        "First line: `none` = data (one with the declared names is refused), `skip` = ignored, `names` = column names "
        "(default for .csv without schema).",
    )
    escape: bool = setting(False, "Decode \\t, \\n and \\\\ inside text cells.")
    bad_rows: Literal["fail", "skip", "quarantine"] = setting(
        "fail",
        "What a bad row does: stop, be skipped and counted, or be copied aside with its reason. A quote in a .csv "
        "table that takes more than 100 lines without making a row stops the job in any case.",
    )
    max_bad_rows: int = setting(0, "Stop after this many bad rows; 0 means no limit.", ge=0)
    no_truncate: bool = setting(False, "Treat a text longer than sequenceLength as a bad row instead of cutting it.")
    unordered: bool = setting(False, "Accepted for compatibility: rows keep their order at no cost.", modes="S")
    merge: bool = setting(
        False, "Join the tables of all workers (`<outputTable>.part-<w>-of-<n>`) into one.", modes="PS"
    )
    table_memory_mb: float = setting(
        1024.0,
        "Megabytes of encoded rows of a table that stay in memory; more go to disk and are read from there.",
        advanced=True,
        modes="TE",
        gt=0,
    )
    cache_dir: str | None = setting(
        None,
        "Folder for tables that do not fit into tableMemoryMb, kept for later jobs; default: one that is removed "
        "when the job is done, in training `cache` in the run folder.",
        advanced=True,
        modes="TE",
        path="one",
    )
    shuffle_buffer_size: int | None = setting(
        None,
        "Accepted for compatibility: every epoch is a full permutation of the table.",
        advanced=True,
        modes="T",
        ge=1,
    )

    def by_file(self, files: Iterable[str]) -> Mapping[str, DataConfig]:
        """Returns how each file of a table is read, where they have columns of their own; empty where all are alike."""
        return {}

    @model_validator(mode="after")
    def _one_evaluation_table(self) -> DataConfig:
        if self.eval_table is not None and self.eval_share != HELD_OUT_SHARE:
            raise ValueError("data.eval_share has no meaning with data.eval_table; remove one of them")
        return self

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        return encoding_name(value)

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        value = {"\\t": "\t", "tab": "\t"}.get(value, value)
        if len(value) != 1:
            raise ValueError("the delimiter is one character; write \\t for a tab")
        return value


class TrainConfig(ConfigModel):
    """Optimization, evaluation during training, and checkpoints."""

    num_epochs: float = setting(1.0, "Passes over the training table; fractions are allowed.", modes="T", gt=0)
    batch_size: int = setting(32, "Rows per step and replica; in other modes rows per model call.", modes="TEPS", ge=1)
    eval_batch_size: int = setting(32, "Rows per evaluation step in training.", advanced=True, modes="T", ge=1)
    optimizer_type: Literal["adam", "adamw", "lamb", "adagrad", "adadelta", "sgd"] = setting(
        "adam", "Optimizer; adam with weight_decay_ratio > 0 is AdamW.", modes="T"
    )
    learning_rate: float = setting(2e-5, "Peak learning rate.", modes="T", gt=0)
    weight_decay_ratio: float = setting(
        0.0,
        "Decoupled weight decay, not of biases and normalization unless the application's README says so; sgd adds it "
        "to the gradient.",
        advanced=True,
        modes="T",
        ge=0,
    )
    momentum: float = setting(0.9, "Momentum of sgd.", advanced=True, modes="T", ge=0, lt=1)
    nesterov: bool = setting(False, "Nesterov momentum for sgd.", advanced=True, modes="T")
    adam_beta1: float = setting(0.9, "Decay of the first moment.", advanced=True, modes="T", ge=0, lt=1)
    adam_beta2: float = setting(0.999, "Decay of the second moment.", advanced=True, modes="T", ge=0, lt=1)
    adam_epsilon: float = setting(1e-6, "Added to the root of the second moment.", advanced=True, modes="T", gt=0)
    compat_v1: bool = setting(
        False, "Use the original's hidden beta2 of 0.98 for adam without weight decay.", advanced=True, modes="T"
    )
    lr_decay: str = setting(
        "polynomial",
        "Schedule: polynomial, linear_after_warmup, cosine, constant, inverse_sqrt, step; other words mean constant.",
        advanced=True,
        modes="T",
    )
    lr_power: float = setting(
        1.0, "Power of lr_decay=polynomial; 0.9 is usual for dense maps.", advanced=True, modes="T", gt=0
    )
    lr_milestones: tuple[float, ...] = setting(
        (0.5, 0.75), "Shares of all steps at which lr_decay=step divides the rate by 10.", advanced=True, modes="T"
    )
    warmup_ratio: float = setting(0.1, "Share of steps with linear warm-up.", advanced=True, modes="T", ge=0, le=1)
    warmup_start: float = setting(
        0.0, "Share of the learning rate that the warm-up begins with.", advanced=True, modes="T", ge=0, le=1
    )
    gradient_clip: bool = setting(True, "Clip gradients by their global norm.", advanced=True, modes="T")
    clip_norm_value: float = setting(
        1.0, "Global norm gradients are clipped to.", advanced=True, aliases=("max_grad_norm",), modes="T", gt=0
    )
    num_accumulated_batches: int = setting(
        1, "Batches summed before one update.", aliases=("num_accumulated_batches",), modes="T", ge=1
    )
    num_freezed_layers: int = setting(0, "Encoder layers 0..n-1 that are not trained.", advanced=True, modes="T", ge=0)
    freeze_embeddings: bool | None = setting(
        None, "Do not train the embeddings; default: true when num_freezed_layers > 0.", advanced=True, modes="T"
    )
    layerwise_lr_decay: float = setting(
        1.0, "Learning rate factor from each layer to the one below it.", advanced=True, modes="T", gt=0, le=1
    )
    ema_decay: float = setting(
        0.0,
        "Decay of the averaged weights used for evaluation and export; 0 = off.",
        advanced=True,
        modes="T",
        ge=0,
        lt=1,
    )
    label_smoothing: float = setting(
        0.0, "Share of the target spread over all classes.", advanced=True, modes="T", ge=0, lt=1
    )
    class_weights: str | None = setting(
        None, "Loss weight per class: `balanced` or a comma list in label order.", advanced=True, modes="T"
    )
    early_stopping_patience: int = setting(
        0, "Stop after this many evaluations without improvement; 0 = never.", advanced=True, modes="T", ge=0
    )
    metric_for_best: str | None = setting(
        None,
        "Metric that picks the best checkpoint, of equal ones the lower loss, then the later step; default per task.",
        advanced=True,
        aliases=("export_best_checkpoint_metric",),
        modes="T",
    )
    eval_every_steps: int | None = setting(
        None, "Steps between evaluations; default once per epoch.", advanced=True, modes="T", ge=1
    )
    num_eval_steps: int | None = setting(None, "Batches per evaluation; default all.", advanced=True, modes="T", ge=1)
    throttle_secs: int = setting(0, "Minimum seconds between evaluations.", advanced=True, modes="T", ge=0)
    save_checkpoint_steps: int | None = setting(
        None, "Steps between checkpoints; default once per epoch.", aliases=("save_steps",), modes="T", ge=1
    )
    keep_checkpoint_max: int = setting(
        2, "Recent checkpoints kept beside the best one.", advanced=True, modes="T", ge=1
    )
    log_step_count_steps: int = setting(20, "Steps between log lines.", advanced=True, modes="T", ge=1)
    init_checkpoint_path: str | None = setting(
        None,
        "Start from the weights of another run's checkpoint, without its optimizer.",
        advanced=True,
        modes="T",
        path="one",
    )
    export_best_checkpoint: bool = setting(
        True, "Export the best checkpoint after training instead of the last.", advanced=True, modes="T"
    )


class RuntimeConfig(ConfigModel):
    """How the process runs: seeds, precision, resume, logging."""

    seed: int = setting(123123, "Seed of shuffling, initial weights, dropout and masking.", modes="TS")
    deterministic: bool = setting(False, "Bit-identical repeats at some cost of speed.", modes="T")
    mixed_precision: Literal["none", "float16", "bfloat16"] = setting(
        "none", "Compute precision; weights stay float32."
    )
    enable_xla: bool = setting(False, "Compile forward and backward pass with XLA.", aliases=("enable_xla",))
    resume: Literal["auto", "never", "must"] = setting(
        "auto", "Continue a stopped run: auto = when its configuration is the same.", modes="TPS"
    )
    overwrite: bool = setting(False, "Allow replacing an existing run folder, output table or export.")
    log_format: Literal["text", "json"] = setting("text", "Form of the log on stderr.")
    dry_run: bool = setting(False, "Check flags, files, the first 100 rows and model shapes, then exit.")
    offline: bool = setting(True, "Never touch the network.")
    model_zoo_base_path: str | None = setting(
        None, "Root of the ModelZoo; default $HOME/.eztransfer_modelzoo.", path="one"
    )


class DistributionConfig(ConfigModel):
    """Where the job runs."""

    distribution_strategy: str | None = setting(
        None,
        "none, mirrored (all devices of this process share every batch) or horovod, the default with several workers; "
        "the original's names are understood.",
        modes="T",
    )
    wire_dtype: Literal["float32", "float16", "int8"] = setting(
        "float32",
        "Number format of gradients between workers; int8 sends a quarter of the bytes and what it rounds away later.",
        advanced=True,
        modes="T",
    )
    bucket_mb: float = setting(8.0, "Most MiB of gradients that travel together.", advanced=True, modes="T", gt=0)
    sparse_gradients: Literal["auto", "gather", "dense"] = setting(
        "auto",
        "How gradients of embeddings travel: looked-up rows, the table, or what is less.",
        advanced=True,
        modes="T",
    )
    fusion_mb: float | None = setting(
        None, "MiB that Horovod fuses into one exchange; bucket_mb when none.", advanced=True, modes="T", gt=0
    )
    cycle_time_ms: float | None = setting(
        None, "Milliseconds between Horovod's looks for what to exchange.", advanced=True, modes="T", gt=0
    )
    timeline: bool = setting(
        False, "Write what was exchanged when to timeline.json, and where a step's time went to the report.", modes="T"
    )
    autotune: bool = setting(
        False, "Try values of fusion_mb and cycle_time_ms, and write the best to the report.", modes="T"
    )
    tensor_parallel: int = setting(
        1,
        "Workers that split the heads and feed-forward units of each encoder layer, or, in co_training, compute one "
        "network each.",
        advanced=True,
        modes="T",
        ge=1,
    )
    pipeline_stages: int = setting(
        1, "Workers that share the encoder's layers from bottom to top.", advanced=True, modes="T", ge=1
    )
    micro_batches: int = setting(
        4,
        "Parts of a batch that go through the stages of a pipeline one after the other.",
        advanced=True,
        aliases=("num_splits",),
        modes="T",
        ge=1,
    )
    worker_count: int = setting(1, "Worker processes.", modes="TEPS", ge=1)
    min_workers: int = setting(
        0,
        "Makes the job elastic: when workers are lost or hosts change, it goes on from the last checkpoint with at "
        "least so many and at most workerCount; a step has batchSize * workerCount rows however many there are.",
        advanced=True,
        modes="T",
        ge=0,
    )
    hosts: str = setting(
        "", "Where to start workers, host:slots,...; all on this machine when empty.", advanced=True, modes="T"
    )
    hosts_script: str | None = setting(
        None,
        "Program that prints host:slots lines, asked again and again by an elastic job.",
        advanced=True,
        modes="T",
        path="one",
    )
    remote_shell: str = setting(
        "ssh -o BatchMode=yes", "Command that runs a command line on another host.", advanced=True, modes="T"
    )
    network_interface: str | None = setting(
        None, "Interface for the exchanges between hosts.", advanced=True, modes="T"
    )
    worker_gpu: int = setting(1, "GPUs per worker.", flag="workerGPU", modes="TEPS", ge=0)
    worker_cpu: int = setting(1, "CPUs per worker.", flag="workerCPU", modes="TEPS", ge=0)
    worker_hosts: str = setting("localhost:5001", "host:port of every worker.", flag="worker_hosts", modes="TEPS")
    task_index: int = setting(0, "Index of this worker.", flag="task_index", modes="TEPS", ge=0)
    job_name: str = setting("worker", "Role of this process.", flag="job_name", modes="TEPS")
    pull_evaluation_in_multiworkers_training: bool = setting(
        False, "One worker only evaluates.", advanced=True, modes="T"
    )

    def workers(self) -> int:
        """Returns the number of workers.

        Raises:
            ConfigError: `task_index` is not one of them.
        """
        count = max(self.worker_count, len(self.worker_hosts.split(",")))
        if self.task_index >= count:
            accepted = f"task_index from 0 to {count - 1}"
            raise ConfigError("there is no such worker", received=self.task_index, accepted=accepted)
        return count


class ExportConfig(ConfigModel):
    """SavedModel export."""

    export_type: str = setting(
        "app_model",
        "app_model; ez_bert_feat for vectors; or a conversion between google, hf and ez_transfer, such as "
        "convert_bert_to_google and convert_google_bert_to_ez_transfer.",
        modes="X",
    )
    export_dir_base: str | None = setting(None, "Target directory of the export.", modes="X", required="X", path="one")
    flat: bool = setting(
        False,
        "Write <exportDirBase>/<version> instead of <exportDirBase>/<name>/<version> with the server's configuration.",
        flag="exportFlat",
        modes="X",
    )
    max_batch_size: int = setting(64, "Largest batch the server builds.", modes="TX", ge=1)
    variants: list[Variant] = setting(
        ["float32"],
        "float32; float16 and int8 with weights in fewer bytes; xla with a compiled network; litert and litert-int8, "
        "which answer without TensorFlow and are the fastest on CPUs; or several, such as float32,litert-int8, to "
        "compare. All but float32 are exported as <name>-<variant>.",
        flag="exportVariants",
        modes="X",
        min_length=1,
    )

    @field_validator("variants")
    @classmethod
    def _each_once(cls, value: list[Variant]) -> list[Variant]:
        if len(set(value)) < len(value):
            raise ValueError("each at most once")
        return value


class ModelConfig(ConfigModel):
    """Parameters of the network; applications add their own."""


class JobConfig(ConfigModel):
    """Everything one job needs."""

    # Columns of tables whose form fixes them, by the ending of their names: what need not be given there.
    fixed_columns: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    # Whether a row has one label, or several at once, by which rows are held out for evaluation.
    held_out_by_label: ClassVar[bool] = True

    schema_version: Literal[2] = setting(2, "Version of this configuration form.", advanced=True)
    model_name: str | None = setting(
        None, "Application, such as text_classify_bert; `easy_transfer_app apps` lists them.", required="T", path="one"
    )
    checkpoint_dir: str | None = setting(None, "Run folder written by training.", modes="T", required="T", path="one")
    checkpoint_path: str | None = setting(
        None,
        "Run folder, one of its checkpoints, or an exported SavedModel; preprocess takes vocabulary and labels from a "
        "run folder.",
        modes="EPXS",
        required="EPX",
        path="one",
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    distribution: DistributionConfig = DistributionConfig()
    export: ExportConfig = ExportConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _with_fixed_columns(cls, values: Any) -> Any:
        """Fills in the columns of a training table of a fixed form."""
        data = values.get("data") if isinstance(values, Mapping) else None
        if not isinstance(data, Mapping):
            return values
        table = str(data.get("train_table") or "").lower().removesuffix(".gz")
        fixed = next((names for ending, names in cls.fixed_columns.items() if table.endswith(ending)), {})
        missing = {name: column for name, column in fixed.items() if name not in data}
        return {**values, "data": {**data, **missing}} if missing else values

    def training_tables(self) -> str | None:
        """Returns the tables whose rows are trained on, as one comma list; None where there is none."""
        return self.data.train_table

    def evaluated_tables(self) -> str | None:
        """Returns the tables that `evaluate` measures on; None where there is none."""
        return self.data.input_table

    @field_validator("model_name")
    @classmethod
    def _no_empty_name(cls, value: str | None) -> str | None:
        return value or None
