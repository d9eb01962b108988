"""The peer's question answering: Hugging Face transformers on PyTorch by the recipe of its documentation.

Windows by `stride` and `return_overflowing_tokens`, start and end logits of the question-answering head, answers from
the best 20 starts and ends per window. Run by `squad_results.py` in a process of its own; prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from peer import weights_folder
from sides import ADAM_EPSILON, WARMUP, WEIGHT_DECAY
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

N_BEST, MAX_ANSWER_LENGTH = 20, 30


def read_questions(path: str) -> list[dict[str, object]]:
    """Returns `id`, `question`, `context`, `text` and `start` of every question of a SQuAD file."""
    data = json.loads(Path(path).read_text(encoding="utf-8"))["data"]
    return [
        {
            "id": question["id"],
            "question": question["question"],
            "context": paragraph["context"],
            "text": question["answers"][0]["text"],
            "start": question["answers"][0]["answer_start"],
        }
        for article in data
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


class Windows(torch.utils.data.Dataset):
    """Tokenized windows, with the positions of the answer or those of [CLS]."""

    def __init__(self, tokenizer, questions: list[dict[str, object]], length: int, stride: int) -> None:
        self.encoded = tokenizer(
            [row["question"] for row in questions],
            [row["context"] for row in questions],
            truncation="only_second",
            max_length=length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        self.question_of = self.encoded.pop("overflow_to_sample_mapping")
        offsets = self.encoded.pop("offset_mapping")
        # None marks what is not context.
        self.offsets = [
            [span if kind == 1 else None for span, kind in zip(row, self.encoded.sequence_ids(i), strict=True)]
            for i, row in enumerate(offsets)
        ]
        rows = zip(self.offsets, self.question_of, strict=True)
        self.positions = [answer_positions(offsets, questions[question]) for offsets, question in rows]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, row: int) -> dict[str, object]:
        start, end = self.positions[row]
        return {name: column[row] for name, column in self.encoded.items()} | {
            "start_positions": start,
            "end_positions": end,
        }


def answer_positions(offsets: list[tuple[int, int] | None], question: dict[str, object]) -> tuple[int, int]:
    """Returns the tokens the answer starts and ends with, (0, 0) when it is not all in the window."""
    start, end = question["start"], question["start"] + len(question["text"])
    inside = [i for i, span in enumerate(offsets) if span is not None]
    if not inside or offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return 0, 0
    first = max(i for i in inside if offsets[i][0] <= start)
    return first, min(i for i in inside if offsets[i][1] >= end)


def best_texts(windows: Windows, questions: list[dict[str, object]], starts, ends) -> dict[str, str]:
    """Returns the best answer to every question over its windows."""
    best: dict[str, tuple[float, str]] = {}
    for offsets, number, start, end in zip(windows.offsets, windows.question_of, starts, ends, strict=True):
        question = questions[number]
        for i in np.argsort(start)[-1 : -N_BEST - 1 : -1].tolist():
            for j in np.argsort(end)[-1 : -N_BEST - 1 : -1].tolist():
                known = i < len(offsets) and j < len(offsets) and offsets[i] is not None and offsets[j] is not None
                if known and i <= j < i + MAX_ANSWER_LENGTH:
                    score = float(start[i] + end[j])
                    if score > best.get(question["id"], (-np.inf, ""))[0]:
                        best[question["id"]] = (score, question["context"][offsets[i][0] : offsets[j][1]])
    return {question["id"]: best.get(question["id"], (0.0, ""))[1] for question in questions}


def main() -> None:
    """Fine-tunes, predicts the evaluation file and prints the answers by question id."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--epochs", type=float, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--stride", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = weights_folder()
    tokenizer = AutoTokenizer.from_pretrained(weights)
    torch.manual_seed(options.seed)
    model = AutoModelForQuestionAnswering.from_pretrained(weights)
    questions = {part: read_questions(getattr(options, part)) for part in ("train", "dev")}
    windows = {part: Windows(tokenizer, rows, options.length, options.stride) for part, rows in questions.items()}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=2 * options.batch_size,
            train_sampling_strategy="group_by_length",
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            weight_decay=WEIGHT_DECAY,
            adam_epsilon=ADAM_EPSILON,
            warmup_steps=WARMUP,
            lr_scheduler_type="linear",
            max_grad_norm=1.0,
            seed=options.seed,
            eval_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=windows["train"],
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.train()
        # Grouping by length would order the evaluation too, and answers belong to windows by order.
        trainer.args.train_sampling_strategy = "random"
        starts, ends = trainer.predict(windows["dev"]).predictions[:2]
    print(json.dumps({"answers": best_texts(windows["dev"], questions["dev"], starts, ends)}))


if __name__ == "__main__":
    main()
