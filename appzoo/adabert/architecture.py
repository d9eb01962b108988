"""What a search finds: which edges and operations a cell has, and how many cells there are. Imports no TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from easytransfer.config.json_text import parse_json
from easytransfer.errors import ConfigError
from easytransfer.run.atomic import write_json

ARCHITECTURE_FILE = "arch.json"
OPERATIONS = (
    *("conv_3", "conv_5", "conv_7", "dilated_conv_3", "dilated_conv_5", "dilated_conv_7"),
    *("max_pool_3", "avg_pool_3", "identity", "zero"),
)
ZERO = OPERATIONS.index("zero")
# Nodes of a cell behind its two inputs, and how many edges each keeps.
NODES, INPUTS, KEPT = 3, 2, 2
# (node, source) of every edge of a cell; sources 0 and 1 are its inputs, 2 + n is node n.
EDGES = tuple((node, source) for node in range(NODES) for source in range(INPUTS + node))
_VERSION = 1


@dataclass(frozen=True)
class Architecture:
    """A derived network.

    Attributes:
        cells: How many there are, all alike.
        nodes: Of each node of a cell its edges: source and operation.
    """

    cells: int
    nodes: tuple[tuple[tuple[int, str], ...], ...]

    @property
    def edges(self) -> Iterator[tuple[int, int, str]]:
        """Yields node, source and operation of every edge."""
        return ((node, source, name) for node, edges in enumerate(self.nodes) for source, name in edges)

    def save(self, folder: Path) -> None:
        """Writes `arch.json`."""
        nodes = [[list(edge) for edge in edges] for edges in self.nodes]
        write_json(folder / ARCHITECTURE_FILE, {"version": _VERSION, "cells": self.cells, "nodes": nodes})

    @classmethod
    def load(cls, path: str | Path) -> Architecture:
        """Reads the file, or that of a run folder.

        Raises:
            ConfigError: It is not there, or is none.
        """
        path = Path(path)
        path = path / ARCHITECTURE_FILE if path.is_dir() else path
        try:
            found = parse_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"cannot read the architecture {path}: {error.strerror}",
                fix="give the arch.json of a finished search, or its run folder, as model.arch_path",
            ) from None
        except ValueError as error:
            raise _broken(path, str(error)) from None
        return cls._read(path, found)

    @classmethod
    def _read(cls, path: Path, found: object) -> Architecture:
        if not isinstance(found, dict) or set(found) != {"version", "cells", "nodes"}:
            raise _broken(path, "not an object of version, cells and nodes")
        if found["version"] != _VERSION:
            raise _broken(path, f"version {found['version']}, and this program reads {_VERSION}")
        cells, nodes = found["cells"], found["nodes"]
        if type(cells) is not int or cells < 1:
            raise _broken(path, f"cells is {json.dumps(cells)}, not a whole number from 1 up")
        if not isinstance(nodes, list) or len(nodes) != NODES:
            raise _broken(path, f"nodes is not a list of {NODES}")
        return cls(cells, tuple(_edges(path, number, edges) for number, edges in enumerate(nodes)))


def _edges(path: Path, node: int, edges: object) -> tuple[tuple[int, str], ...]:
    where = f"node {node}"
    if not isinstance(edges, list) or not edges:
        raise _broken(path, f"{where} has no edges")
    for edge in edges:
        if not isinstance(edge, list) or len(edge) != 2 or edge[1] not in OPERATIONS:
            known = ", ".join(OPERATIONS)
            raise _broken(
                path, f"{where} has the edge {json.dumps(edge)}, not [source, operation]; operations: {known}"
            )
        if type(edge[0]) is not int or not 0 <= edge[0] < INPUTS + node:
            raise _broken(path, f"{where} has the source {json.dumps(edge[0])}, not 0 to {INPUTS + node - 1}")
    sources = [edge[0] for edge in edges]
    if len(set(sources)) < len(sources):
        raise _broken(path, f"{where} has two edges of one source")
    return tuple((source, name) for source, name in edges)


def _broken(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path} is no architecture: {reason}", fix="give the arch.json of a search")


def derive(edges: np.ndarray, depth: np.ndarray) -> Architecture:
    """Returns the network that architecture weights stand for.

    An edge is as strong as its strongest operation other than zero, by the softmax over all ten; each node keeps its
    two strongest edges with that operation, of equal ones the first. As many cells as the largest of `depth` says.

    Args:
        edges: [edges of a cell, operations], in the order of `EDGES` and `OPERATIONS`.
        depth: [most cells]; entry k - 1 stands for k cells.
    """
    weights = np.exp(edges - edges.max(axis=1, keepdims=True))
    weights = weights / weights.sum(axis=1, keepdims=True)
    weights[:, ZERO] = -1
    operations, strengths, nodes = weights.argmax(axis=1), weights.max(axis=1), []
    for node in range(NODES):
        own = [i for i, (of, _) in enumerate(EDGES) if of == node]
        kept = sorted(sorted(own, key=lambda i: -strengths[i])[:KEPT])
        nodes.append(tuple((EDGES[i][1], OPERATIONS[operations[i]]) for i in kept))
    return Architecture(int(depth.argmax()) + 1, tuple(nodes))
