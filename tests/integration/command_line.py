"""One command line of `easy_transfer_app` in this process."""

from __future__ import annotations

import json

from appzoo.cli.main import main


def run(capfd, *arguments: object) -> dict:
    """Runs a command line that must succeed; returns its result."""
    capfd.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)
