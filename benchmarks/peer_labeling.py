"""The peer of `conll_results.py`: transformers' token-classification recipe on PyTorch.

Run in a process of its own; prints one JSON object. Words are tokenized with `is_split_into_words`, the label is on the
first piece and -100 elsewhere, batches are padded by `DataCollatorForTokenClassification`. Words beyond the limit have
no prediction there; they are scored as `O` and counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from peer import weights_folder
from sides import ADAM_EPSILON, BATCH_SIZE, LEARNING_RATE, MAX_LENGTH, WARMUP, WEIGHT_DECAY
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from appzoo.labeling.entities import entities

IGNORED = -100


def read_table(path: str) -> list[tuple[list[str], list[str]]]:
    """Reads lines of words TAB tags."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [tuple(cell.split(" ") for cell in line.split("\t")) for line in lines]


class Rows(torch.utils.data.Dataset):
    """Tokenized rows with aligned labels, made once before training."""

    def __init__(self, tokenizer, table: list[tuple[list[str], list[str]]], ids: dict[str, int]) -> None:
        self.encoded = tokenizer(
            [words for words, _ in table], is_split_into_words=True, truncation=True, max_length=MAX_LENGTH
        )
        self.labels = []
        for row, (_, tags) in enumerate(table):
            before, labels = None, []
            for word in self.encoded.word_ids(row):
                labels.append(IGNORED if word is None or word == before else ids[tags[word]])
                before = word
            self.labels.append(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, object]:
        return {name: column[row] for name, column in self.encoded.items()} | {"labels": self.labels[row]}


class InOrder(Trainer):
    """Evaluates rows in table order: grouping by length would order the evaluation too."""

    def _get_eval_sampler(self, eval_dataset: torch.utils.data.Dataset) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(eval_dataset)


def entity_f1(table: list[tuple[list[str], list[str]]], predicted: list[list[str]]) -> float:
    """Returns the F1 over entities of all rows."""
    true = {(row, *entity) for row, (_, tags) in enumerate(table) for entity in entities(tags)}
    found = {(row, *entity) for row, tags in enumerate(predicted) for entity in entities(tags)}
    return 2 * len(true & found) / max(len(true) + len(found), 1)


def main() -> None:
    """Fine-tunes; reports dev F1 after each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    train, dev = read_table(options.train), read_table(options.dev)
    names = sorted({tag for _, tags in train for tag in tags})
    ids = {name: number for number, name in enumerate(names)}
    # Tags that only the dev table has cannot be predicted; they must not be compared with -100 either.
    missing = {tag for _, tags in dev for tag in tags} - set(names)
    tokenizer = AutoTokenizer.from_pretrained(weights_folder())
    model = AutoModelForTokenClassification.from_pretrained(weights_folder(), num_labels=len(names))
    dev_rows = Rows(tokenizer, dev, ids | dict.fromkeys(missing, 0))
    lost = 0

    def score(found) -> dict[str, float]:
        nonlocal lost
        predicted = []
        for (_, tags), logits, labels in zip(dev, found.predictions, found.label_ids, strict=True):
            kept = [names[i] for i in logits.argmax(-1)[np.asarray(labels) != IGNORED]]
            predicted.append(kept + ["O"] * (len(tags) - len(kept)))
        lost = sum(len(tags) for _, tags in dev) - int((found.label_ids != IGNORED).sum())
        return {"f1": entity_f1(dev, predicted)}

    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=2 * BATCH_SIZE,
            train_sampling_strategy="group_by_length",
            num_train_epochs=options.epochs,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            adam_epsilon=ADAM_EPSILON,
            warmup_steps=WARMUP,
            lr_scheduler_type="linear",
            max_grad_norm=1.0,
            seed=options.seed,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = InOrder(
            model=model,
            args=arguments,
            train_dataset=Rows(tokenizer, train, ids),
            eval_dataset=dev_rows,
            data_collator=DataCollatorForTokenClassification(tokenizer),
            compute_metrics=score,
        )
        trainer.train()
    f1 = [record["eval_f1"] for record in trainer.state.log_history if "eval_f1" in record]
    print(json.dumps({"f1": f1, "words_without_prediction": lost, "train_s": round(time.monotonic() - begin, 2)}))


if __name__ == "__main__":
    main()
