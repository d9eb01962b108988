"""The verb `profile`: what an image network costs."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easytransfer.config.parser import Parser
from easytransfer.errors import ConfigError
from easytransfer.image.size import ImageSize, height_width, size_reader
from easytransfer.presets.folder import read_json
from modelzoo.cnn import published
from modelzoo.cnn.config import CnnConfig
from modelzoo.cnn.names import named, names
from modelzoo.cnn.profile import Profile, latency
from modelzoo.cnn.profile import profile as count

_WIDTH = 120
_CLASSES = 1000


def profile(arguments: Sequence[str]) -> str | dict[str, Any]:
    """Counts parameters and multiply-accumulates of an image network, and measures its latency."""
    options = _parser().read(arguments)
    if options["list"]:
        return "\n".join(names())
    if options["published"]:
        return published.markdown()
    if options["name"] is None:
        raise ConfigError("profile needs the name of an image network", fix="--list shows the names")
    config, classes = _network(options["name"], options["classes"])
    if options["image_size"] is not None:
        config = config.replace(image_size=options["image_size"])
    found = count(config, classes)
    times = latency(config, classes, options["batch"]) if options["latency"] else None
    result = {
        "name": options["name"],
        "classes": classes,
        "image_size": config.image_size,
        "parameters": found.parameters,
        "statistics": found.statistics,
        "macs": found.macs,
        "macs_with_norms": found.macs_with_norms,
        **({"batch": options["batch"], **times} if times else {}),
    }
    if options["json"]:
        return {**result, "layers": [dataclasses.asdict(layer) for layer in found.layers]}
    return _table(result, found, all_layers=options["layers"])


def _parser() -> Parser:
    parser = Parser(prog="easy_transfer_app profile", description="What an image network costs.")
    parser.add_argument("name", nargs="?", help="name such as resnet20_cifar, or a model folder")
    parser.add_argument("--classes", type=_positive, help=f"classes; default those of the folder, or {_CLASSES}")
    parser.add_argument(
        "--image-size",
        "--imageSize",
        type=_size,
        help="pixels: one number, or height,width; default those of the network",
    )
    parser.add_argument("--layers", action="store_true", help="one line for each layer")
    parser.add_argument("--latency", action="store_true", help="measure the time of a batch on this machine")
    parser.add_argument("--batch", type=_positive, default=1, help="images in a batch, for --latency; default 1")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parser.add_argument("--list", action="store_true", help="well-known names, one line each")
    parser.add_argument("--published", action="store_true", help="all published figures beside ours, as Markdown")
    return parser


def _positive(text: str) -> int:
    """Reads a whole number above 0; argparse makes a message of the ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _size(text: str) -> ImageSize:
    """Reads a size; argparse makes a message of the ValueError."""
    return size_reader(1)(text.split(","))


def _network(name: str, classes: int | None) -> tuple[CnnConfig, int]:
    """Returns the configuration of a name or folder, and the classes to count."""
    if not Path(name, "config.json").is_file():
        return named(name), classes or _CLASSES
    stored = read_json(Path(name, "config.json")).get("classes")
    return CnnConfig.from_folder(name), classes or stored or _CLASSES


def _table(result: dict[str, Any], found: Profile, all_layers: bool) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    size = "x".join(map(str, height_width(result["image_size"])))
    title = f"{result['name']}: one image of {size}, {result['classes']} classes"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("layer", "kind", "output"):
        table.add_column(heading)
    for heading in ("parameters", "statistics", "MACs"):
        table.add_column(heading, justify="right")
    for layer in found.layers if all_layers else ():
        numbers = (layer.parameters, layer.statistics, layer.macs)
        table.add_row(layer.name, layer.kind, "x".join(map(str, layer.output)), *(f"{n:,}" for n in numbers))
    totals = (found.parameters, found.statistics, found.macs)
    table.add_row("all", f"{len(found.layers)} layers", "", *(f"{n:,}" for n in totals))
    console = Console(file=io.StringIO(), width=_WIDTH)
    console.print(table)
    lines = [line.rstrip() for line in console.file.getvalue().strip("\n").splitlines()]
    lines.append(f"MACs with 2 for each normalised output: {found.macs_with_norms:,}")
    if "median_ms" in result:
        speed = f"{result['images_per_second']:.1f} images/s"
        spread = f"{result['fastest_ms']:.2f} to {result['slowest_ms']:.2f} ms"
        lines.append(f"batch of {result['batch']}: median {result['median_ms']:.2f} ms ({spread}), {speed}")
    return "\n".join(lines)
