"""One process of `distributed.py`: a worker, parameter server, coordinator or rendezvous server of a subject.

It reads commands from stdin, one JSON object per line, and answers each with a line that begins with `@`. Every
subject trains the same model with the same optimizer; they differ in how gradients get to the other processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import sys
import threading
import time
from typing import Any

LEARNING_RATE = 3e-4


def answer(**values: Any) -> None:
    """Writes one answer."""
    print("@" + json.dumps(values), flush=True)


def commands() -> queue.Queue[dict[str, Any]]:
    """Returns the queue that stdin is read into; the process ends when whoever started it is gone."""
    received: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            received.put(json.loads(line))
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return received


def rendezvous(settings: dict[str, Any], received: queue.Queue[dict[str, Any]]) -> None:
    """Tells the Horovod workers of a job where the others are."""
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.http.http_server import RendezvousServer

    server = RendezvousServer()
    port = server.start()
    hosts = ",".join(f"worker{rank}:1" for rank in range(settings["workers"]))
    server.init(get_host_assignments(parse_hosts(hosts), settings["workers"]))
    answer(port=port)
    received.get()


def tensorflow_server() -> None:
    """Serves as parameter server, or as a worker that a coordinator gives work to."""
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    server = tf.distribute.Server(
        resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id, protocol="grpc"
    )
    answer(ready=True)
    server.join()


def train(settings: dict[str, Any], received: queue.Queue[dict[str, Any]]) -> None:
    """Trains one subject as commanded: `steps`, `hash`, `stop`."""
    from distributed_subjects import open_subject

    subject = open_subject(settings, LEARNING_RATE)
    answer(**subject.sizes())
    while (command := received.get())["do"] != "stop":
        if command["do"] == "steps":
            begin = time.perf_counter()
            losses = subject.run(command["count"])
            seconds = time.perf_counter() - begin
            answer(seconds=seconds, losses=subject.fetched(losses))
        else:
            digest = hashlib.sha256()
            for variable in subject.replicated():
                digest.update(variable.numpy().tobytes())
            answer(hash=digest.hexdigest())


def main() -> None:
    """Plays the role of the settings, a JSON object given as the only argument."""
    settings = json.loads(sys.argv[1])
    received = commands()
    with contextlib.suppress(KeyboardInterrupt):
        if settings["role"] == "rendezvous":
            rendezvous(settings, received)
        elif settings["role"] == "server":
            tensorflow_server()
        else:
            train(settings, received)
    # Exchanges have threads that would wait for the other processes.
    os._exit(0)


if __name__ == "__main__":
    main()
