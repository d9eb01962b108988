"""A small HTTP client that asks a server at a given concurrency (closed loop) or rate (open loop) and keeps times."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# Connections an open loop opens at most; what finds none free is counted apart.
MOST_CONNECTIONS = 1000


@dataclass
class Result:
    """What came back.

    Attributes:
        codes: Answers by HTTP status; `wrong` for those whose content is wrong, `error` for broken connections.
        seconds: Times of the answers with status 200, from the moment a request was due.
        duration: Length of the run.
    """

    codes: Counter = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    duration: float = 0.0

    @property
    def per_second(self) -> float:
        """Right answers per second."""
        return len(self.seconds) / self.duration

    def add(self, other: Result) -> None:
        """Adds what came back in another run of the same load."""
        self.codes += other.codes
        self.seconds += other.seconds
        self.duration += other.duration

    def keeps(self, bound_ms: float) -> bool:
        """Says whether p99 stays below a bound and no more than one request in a hundred failed."""
        return self.quantile(0.99) <= bound_ms and len(self.seconds) >= 0.99 * sum(self.codes.values())

    def quantile(self, share: float) -> float:
        """Returns the time in milliseconds that this share of the answers stayed below."""
        ordered = sorted(self.seconds)
        return 1e3 * ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


class Asker:
    """Sends the same kind of request again and again.

    Args:
        url: Address of the call.
        bodies: Bodies, taken in turn.
        check: Called with the number of the body and the answer; says whether it is right.

    Attributes:
        result: What came back so far.
        stopped: Set by other threads to end a closed loop before its time.
    """

    def __init__(self, url: str, bodies: Sequence[dict], check: Callable[[int, dict], bool] = lambda *_: True) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._check = parts.hostname, parts.port, check
        self._requests = []
        for body in bodies:
            data = json.dumps(body).encode()
            head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(data)}\r\n\r\n"
            self._requests.append(head.encode() + data)
        self._next = 0
        self.result = Result()
        self.stopped = False

    def closed(self, clients: int, seconds: float) -> Result:
        """Runs `clients` clients, each of which asks again as soon as it has its answer."""
        return asyncio.run(self._closed(clients, seconds))

    def open(self, rate: float, seconds: float, seed: int = 0) -> Result:
        """Asks `rate` times a second at random moments, however long answers take."""
        return asyncio.run(self._open(rate, seconds, random.Random(seed)))

    async def _closed(self, clients: int, seconds: float) -> Result:
        begin = time.monotonic()

        async def client() -> None:
            connection = None
            while (due := time.monotonic()) < begin + seconds and not self.stopped:
                connection = await self._ask(connection, due)
            _close(connection)

        await asyncio.gather(*(client() for _ in range(clients)))
        self.result.duration = time.monotonic() - begin
        return self.result

    async def _open(self, rate: float, seconds: float, draw: random.Random) -> Result:
        begin = due = time.monotonic()
        free, tasks = [], set()

        async def one(due: float) -> None:
            connection = await self._ask(free.pop() if free else None, due)
            if connection is not None:
                free.append(connection)

        while (due := due + draw.expovariate(rate)) < begin + seconds:
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            if len(tasks) >= MOST_CONNECTIONS:
                self.result.codes["not sent"] += 1
                await asyncio.sleep(0)
                continue
            task = asyncio.create_task(one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        self.result.duration = time.monotonic() - begin
        for connection in free:
            _close(connection)
        return self.result

    async def _ask(self, connection, due: float):
        """Sends one request and returns the connection, None if it broke."""
        number = self._next % len(self._requests)
        self._next += 1
        try:
            reader, writer = connection or await asyncio.open_connection(self._host, self._port)
            writer.write(self._requests[number])
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            self.result.codes["error"] += 1
            return None
        code = int(head.split(b" ", 2)[1])
        if code != 200:
            self.result.codes[code] += 1
        elif not self._check(number, json.loads(body)):
            self.result.codes["wrong"] += 1
        else:
            self.result.codes[200] += 1
            self.result.seconds.append(time.monotonic() - due)
        return reader, writer


def _close(connection) -> None:
    if connection is not None:
        connection[1].close()
