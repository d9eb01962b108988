"""Load on the server: a MiniLM classifier with micro-batching, without it, and behind transformers on PyTorch.

    python benchmarks/serving_load.py --data DIR [--checkpoint RUN_FOLDER] [--modes closed,open,overload,swap,restart]

Texts are those of DIR/dev.tsv, one a request. Every server runs in a process of its own on the same cores; the client
runs on these cores, too. All servers of a comparison stand ready and take turns, in rounds. The peer is Starlette on
uvicorn, as ours, around a fast tokenizer and the model under `inference_mode`, one request at a time; its weights are
those ours was made from, its head is random, which costs no time. `closed`: clients that ask again as soon as they are
answered. `open`: requests at a given rate, times from the moment a request was due; the last lines compare the highest
rates whose p99 stays below a bound. `overload`: ten times the capacity; codes of refused requests, wrong answers,
growth of memory. `swap`: versions with other weights are published one after the other while clients ask; an answer of
two rows must be of one version. `restart`: the server is killed under load and started again; the time until it is
ready, and whether it answers as before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import numpy as np
from load_client import Asker, Result
from predict_speed import trained
from sides import MAX_LENGTH, print_table, versions

OURS = [sys.executable, "-c", "from appzoo.cli.main import main; raise SystemExit(main())", "serve"]
NAME = "text_classify_bert"
OURS_SIDE = "micro-batching"
OVERLOAD, QUEUED_BATCHES = 10, 4
# Seconds after which a version that does not answer is given up.
SWAP_LIMIT = 120
ALONE = "max_batch_size { value: 1 } max_enqueued_batches { value: 6400 } num_batch_threads { value: 2 }"
SHORT_QUEUE = f"max_batch_size {{ value: 64 }} max_enqueued_batches {{ value: {QUEUED_BATCHES} }}"
# Makes a version of another one: the same program with other weights; prints what it answers to the texts.
REWEIGHT = """
import json, sys
import tensorflow as tf
from easytransfer.export.selfcheck.operators import load_needed_operators, read_saved_model
from pathlib import Path
source, target, change, texts = sys.argv[1], sys.argv[2], float(sys.argv[3]), json.loads(sys.argv[4])
load_needed_operators(read_saved_model(Path(source)))
loaded = tf.saved_model.load(source)
head = min((v for v in loaded.weights if v.shape.rank == 1), key=lambda v: v.shape[0])
head.assign_add(tf.linspace(change, 0.0, head.shape[0]))
answer = loaded.signatures["serving_default"](text=tf.constant(texts))["probabilities"]
tf.saved_model.save(loaded, target, signatures=dict(loaded.signatures))
print(json.dumps(answer.numpy().tolist()))
"""


def peer(threads: int) -> None:
    """Serves the reference until it is killed."""
    import socket

    import torch
    import uvicorn
    from peer import weights_folder
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(weights_folder())
    model = AutoModelForSequenceClassification.from_pretrained(weights_folder(), num_labels=2).eval()

    async def predict(request):
        texts = (await request.json())["instances"]
        with torch.inference_mode():
            batch = tokenizer(texts, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
            probabilities = torch.softmax(model(**batch).logits, -1)
        return JSONResponse({"predictions": probabilities.tolist()})

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(json.dumps({"rest": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    app = Starlette(routes=[Route("/v1/models/{name:path}", predict, methods=["POST"])])
    settings = uvicorn.Config(app, log_level="error", access_log=False, timeout_keep_alive=120)
    uvicorn.Server(settings).run(sockets=[listener])


@contextlib.contextmanager
def server(command: list[str], cores: int) -> Iterator[tuple[str, int]]:
    """Starts a server; gives the address of its predict call and its process id once it answers."""
    mine = sorted(os.sched_getaffinity(0))[:cores]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(cores)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, mine)
    )
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"failed to start: {' '.join(command)}")
        yield f"{json.loads(line)['rest']}/v1/models/{NAME}:predict", process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def ours(base: Path, batching: str | None = None) -> list[str]:
    """Returns the command of our server, with other batching parameters than those beside the models if given."""
    flags = ["--restPort=0", "--grpcPort=0", "--accessLog=false", "--pollSeconds=0.5", "--logFormat=text"]
    if batching is not None:
        path = base.parent / "other_batching.config"
        path.write_text(batching, encoding="utf-8")
        flags.append(f"--batchingConfig={path}")
    return [*OURS, str(base), *flags]


def resident_mb(process: int) -> float:
    """Returns the memory a process holds now."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def row(side: str, load: str, result: Result) -> list[str]:
    """Returns one line of the table."""
    others = {str(code): count for code, count in result.codes.items() if code != 200}
    times = [f"{result.quantile(share):.1f}" for share in (0.5, 0.99)]
    return [side, load, f"{result.per_second:.1f}", *times, json.dumps(others) if others else ""]


def in_turn(
    urls: dict[str, str], bodies: list[dict], options: argparse.Namespace, load: Callable[[Asker, float], Result]
) -> dict[str, Result]:
    """Returns what every side answered to a load, measured in rounds, since the speed of a machine drifts."""
    found = {side: Result() for side in urls}
    for _ in range(options.rounds):
        for side, url in urls.items():
            found[side].add(load(Asker(url, bodies), options.seconds / options.rounds))
    return found


def compare(base: Path, bodies: list[dict], options: argparse.Namespace) -> None:
    """Measures the three sides in turn and prints table and ratios."""
    commands = {
        OURS_SIDE: ours(base),
        "one at a time": ours(base, ALONE),
        "transformers": [sys.executable, __file__, "--peer", "--cores", str(options.cores), "--data", "."],
    }
    rows, ratios, best = [], [], {}
    with contextlib.ExitStack() as stack:
        urls = {side: stack.enter_context(server(command, options.cores))[0] for side, command in commands.items()}
        for url in urls.values():
            Asker(url, bodies).closed(4, min(5.0, options.seconds))
        for clients in options.clients if "closed" in options.modes else []:
            found = in_turn(urls, bodies, options, lambda asker, seconds: asker.closed(clients, seconds))  # noqa: B023
            rows += [row(side, f"{clients} clients", result) for side, result in found.items()]
            for other in list(found)[1:]:
                ratio = found[OURS_SIDE].per_second / found[other].per_second
                ratios.append(f"{clients} clients: {OURS_SIDE} answers {ratio:.2f} times as many as {other}")
        for rate in options.rates if "open" in options.modes else []:
            found = in_turn(urls, bodies, options, lambda asker, seconds: asker.open(rate, seconds))  # noqa: B023
            rows += [row(side, f"{rate}/s", result) for side, result in found.items()]
            kept = [side for side, result in found.items() if result.keeps(options.bound_ms)]
            best |= dict.fromkeys(kept, rate)
            # A side that failed a rate is not asked at a higher one.
            urls = {side: urls[side] for side in kept}
    print_table(["side", "load", "answers/s", "p50 ms", "p99 ms", "other codes"], rows)
    print("\n".join(ratios))
    for other in list(commands)[1:]:
        if best.get(other) and best.get(OURS_SIDE):
            rates = f"{best[OURS_SIDE]}/s and {best[other]}/s, ratio {best[OURS_SIDE] / best[other]:.2f}"
            print(f"p99 <= {options.bound_ms:g} ms, {OURS_SIDE} and {other}: {rates}")


def overload(base: Path, bodies: list[dict], options: argparse.Namespace) -> None:
    """Sends ten times what the server can answer."""
    with server(ours(base, SHORT_QUEUE), options.cores) as (url, process):
        expected = alone(url, bodies)
        capacity = Asker(url, bodies).closed(32, min(10.0, options.seconds)).per_second

        def right(number: int, reply: dict) -> bool:
            return close(reply["predictions"], expected[number])

        # Memory is compared after connections and buffers have been made.
        Asker(url, bodies, right).open(OVERLOAD * capacity, options.seconds / 6)
        before = resident_mb(process)
        result = Asker(url, bodies, right).open(OVERLOAD * capacity, options.seconds)
        after = resident_mb(process)
    print(f"overload: {OVERLOAD} x {capacity:.0f}/s for {options.seconds:g} s: {result.per_second:.1f} answers/s")
    print(f"  p50 {result.quantile(0.5):.0f} ms, p99 {result.quantile(0.99):.0f} ms, codes {dict(result.codes)}")
    print(f"  memory {before:.0f} MB before, {after:.0f} MB after: {100 * (after / before - 1):+.1f} %")


def swap(base: Path, bodies: list[dict], options: argparse.Namespace) -> None:
    """Publishes versions under load."""
    folder, texts = base / NAME, [body["instances"][0] for body in bodies[:2]]
    expected = []
    for number in range(options.swaps + 1):
        made = base.parent / "versions" / str(number + 2)
        command = [sys.executable, "-c", REWEIGHT, str(folder / "1"), str(made), str(0.5 * number), json.dumps(texts)]
        expected.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
        shutil.copytree(folder / "1" / "assets.extra", made / "assets.extra")
    answered: set[int] = set()

    def of_one_version(_: int, reply: dict) -> bool:
        found = [item["probabilities"] for item in reply["predictions"]]
        version = [number for number, rows in enumerate(expected) if np.allclose(found, rows, atol=1e-4)]
        answered.update(version)
        return len(version) == 1

    (base.parent / "versions" / "2").rename(folder / "2")
    with server(ours(base), options.cores) as (url, process):
        asker = Asker(url, [{"instances": texts}], of_one_version)
        load = Thread(target=asker.closed, args=(8, SWAP_LIMIT * (options.swaps + 1)))
        load.start()
        for number in range(1, options.swaps + 1):
            (base.parent / "versions" / str(number + 2)).rename(folder / str(number + 2))
            end = time.monotonic() + SWAP_LIMIT
            while number not in answered and time.monotonic() < end:
                time.sleep(0.1)
        asker.stopped = True
        load.join()
        memory = resident_mb(process)
    result = asker.result
    failed = {code: count for code, count in result.codes.items() if code != 200}
    print(f"swap: {options.swaps} exchanges, {len(answered)} versions answered, {result.codes[200]} answers")
    print(f"  p50 {result.quantile(0.5):.0f} ms, p99 {result.quantile(0.99):.0f} ms, failed or mixed: {failed or 0}")
    print(f"  memory at the end {memory:.0f} MB")


def restart(base: Path, bodies: list[dict], options: argparse.Namespace) -> None:
    """Kills the server while clients ask, and starts it again."""
    with server(ours(base), options.cores) as (url, process):
        expected = alone(url, bodies[:1])
        load = Thread(target=Asker(url, bodies).closed, args=(8, 2.0))
        load.start()
        time.sleep(1)
        os.kill(process, signal.SIGKILL)
        load.join()
    begin = time.monotonic()
    with server(ours(base), options.cores) as (url, _):
        ready = time.monotonic() - begin
        right = close(alone(url, bodies[:1])[0], expected[0])
    print(f"restart after kill -9: ready in {ready:.1f} s, answers {'as before' if right else 'DIFFER'}")


def alone(url: str, bodies: list[dict]) -> list[list]:
    """Returns the answer to each body when nothing else is asked."""
    found: dict[int, list] = {}
    asker = Asker(url, bodies, lambda number, reply: bool(found.setdefault(number, reply["predictions"])))
    while len(found) < len(bodies):
        asker.closed(1, 0.5)
    return [found[number] for number in range(len(bodies))]


def close(found: list, expected: list) -> bool:
    """Says whether two answers agree, apart from how sums are ordered in batches of other sizes."""
    pairs = zip(found, expected, strict=True)
    return all(np.allclose(a["probabilities"], b["probabilities"], atol=1e-4) for a, b in pairs)


def main() -> None:
    """Runs the modes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="run folder of text_classify_bert; default: train two steps")
    parser.add_argument("--modes", default="closed,open", help="of closed, open, overload, swap, restart")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="in which the sides take turns")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rates", type=int, nargs="+", default=[50, 100, 125, 150, 200, 225, 250, 275, 300])
    parser.add_argument("--bound-ms", type=float, default=250.0, help="bound of p99 for the ratio of rates")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return peer(options.cores)
    lines = (options.data / "dev.tsv").read_text(encoding="utf-8").splitlines()[: options.texts]
    bodies = [{"instances": [line.split("\t")[0]]} for line in lines]
    print(f"{len(bodies)} texts, {options.cores} cores, {json.dumps(versions())}\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        run = options.checkpoint or trained(options.data, Path(temporary), options.cores)
        base = Path(shutil.copytree(run / "export", Path(temporary, "export")))
        if {"closed", "open"} & set(options.modes.split(",")):
            compare(base, bodies, options)
        for mode in (overload, swap, restart):
            if mode.__name__ in options.modes.split(","):
                mode(base, bodies, options)


if __name__ == "__main__":
    main()
