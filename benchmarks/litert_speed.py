"""The inner loop of a text classifier on CPU: LiteRT exports beside torch, in interleaved rounds in one process.

Texts are tokenized before the clocks start. Needs a run of `text_classify_bert` on a BERT, its encoder for
transformers, and its exports for LiteRT:

    easy_transfer_app export --checkpointPath RUN --exportDirBase exported --exportVariants litert,litert-int8
    easy_transfer_app export --checkpointPath RUN --exportType convert_bert_to_hf --exportDirBase hf
    python benchmarks/litert_speed.py RUN exported hf dev.tsv
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, BertForSequenceClassification

import modelzoo.loading as zoo
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.labels import LabelMap
from easytransfer.litert.model import LiteRtModel

PARTS = ("kernel", "bias")
Side = Callable[[dict[str, np.ndarray]], np.ndarray]


def torch_model(run: Path, encoder: Path, labels: int) -> torch.nn.Module:
    """Returns the classifier of a run as transformers has it: its encoder, and the head of the run's checkpoint."""
    model = BertForSequenceClassification.from_pretrained(encoder, num_labels=labels).eval()
    model.bert.load_state_dict(AutoModel.from_pretrained(encoder).state_dict())
    (path,) = sorted(run.glob("model.ckpt-*/weights.safetensors"))[-1:]
    weights = load_file(path)
    kernel, bias = ([value for name, value in weights.items() if name.endswith(f"head/{part}")][0] for part in PARTS)
    model.classifier.weight.data = torch.from_numpy(np.ascontiguousarray(kernel.T))
    model.classifier.bias.data = torch.from_numpy(bias)
    return model


def torch_side(model: torch.nn.Module) -> Side:
    """Returns a torch classifier as a function of our arrays."""

    def call(batch: dict[str, np.ndarray]) -> np.ndarray:
        names = {"input_ids": "input_ids", "attention_mask": "input_mask", "token_type_ids": "segment_ids"}
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(batch[ours]).long() for name, ours in names.items()}).logits.numpy()

    return call


def one_round(side: Side, batches: list[dict[str, np.ndarray]]) -> tuple[float, np.ndarray]:
    """Returns seconds and logits of all batches."""
    begin = time.perf_counter()
    found = [side(batch) for batch in batches]
    return time.perf_counter() - begin, np.concatenate(found)


def main() -> None:
    """Prints a line for each side and each way to batch: ratio to torch float32, accuracy, flips."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "exported", "encoder", "table"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=1, help="take every n-th row of the table (text TAB label)")
    parser.add_argument("--max-length", type=int, default=128)
    options = parser.parse_args()

    labels = LabelMap.load(options.run)
    lines = options.table.read_text(encoding="utf-8").splitlines()[:: options.every]
    texts, names = zip(*(line.split("\t") for line in lines), strict=True)
    wanted = np.array([labels.id_of(name) for name in names])
    tokens = zoo.load_tokenizer(options.run).encode(texts, None, max_length=options.max_length)
    columns = {"input_ids": tokens.input_ids, "segment_ids": tokens.segment_ids}
    table = EncodedTable(columns, {"input_mask": "input_ids"})
    order = np.argsort(tokens.input_ids.lengths, kind="stable")

    model = torch_model(options.run, options.encoder, len(labels))
    eighth = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    sides: dict[str, Side] = {"torch float32": torch_side(model), "torch dynamic int8": torch_side(eighth)}
    for variant in ("litert", "litert-int8"):
        (folder,) = sorted(options.exported.glob(f"*-{variant}/*/model.tflite"))[-1:]
        litert = LiteRtModel(folder.parent)
        sides[variant] = lambda batch, litert=litert: litert(batch)["logits"]

    print(f"{len(texts)} texts, {torch.get_num_threads()} threads, {options.rounds} rounds")
    for size in (1, 32, 128):
        rows = [order[at : at + size] for at in range(0, len(order), size)]
        batches = [table.batch(part, pad_multiple=1) for part in rows]
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        answers: dict[str, np.ndarray] = {}
        for number in range(options.rounds + 1):
            for name, side in sides.items():
                took, answers[name] = one_round(side, batches)
                if number:  # the first round warms up
                    seconds[name].append(took)
        base = statistics.median(seconds["torch float32"])
        reference = answers["torch float32"].argmax(axis=1)
        for name, times in seconds.items():
            chosen = answers[name].argmax(axis=1)
            accuracy, flips = np.mean(chosen == wanted[order]), int(np.sum(chosen != reference))
            spread = f"{min(times):.2f} to {max(times):.2f} s"
            ratio = base / statistics.median(times)
            print(f"{size:>4} sorted  {name:<20} {ratio:5.2f} x  {spread}  accuracy {accuracy:.4f}  flips {flips}")


if __name__ == "__main__":
    main()
