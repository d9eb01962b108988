"""Attacks by name, free of TensorFlow: `fgsm`, `pgd20`, `cw20`, `kl10`, `apgd_ce100`, `apgd_dlr100`, `apgd100`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from easytransfer.errors import ConfigError

EXAMPLES = ("fgsm", "noise", "pgd20", "cw20", "kl10", "apgd_ce100", "apgd_dlr100", "apgd100")
# Step size and radius of WAR's evaluation (https://arxiv.org/abs/2010.01279): 0.007 at 0.031.
STEP_SHARE = 7 / 31
_FORM = re.compile(r"(pgd|cw|kl|apgd_ce|apgd_dlr|apgd)(\d+)")
_KINDS = {
    "pgd": ("pgd", ("ce",)),
    "cw": ("pgd", ("cw",)),
    "kl": ("pgd", ("kl",)),
    "apgd_ce": ("apgd", ("ce",)),
    "apgd_dlr": ("apgd", ("dlr",)),
    "apgd": ("apgd", ("ce", "dlr")),
}


@dataclass(frozen=True)
class NamedAttack:
    """What a name stands for.

    Attributes:
        name: The name.
        kind: `fgsm`, `noise` (one random point), `pgd` or `apgd`.
        losses: Losses raised one after the other; the next is tried on rows that withstood the one before.
        steps: Iterations.
    """

    name: str
    kind: str
    losses: tuple[str, ...]
    steps: int


def named_attack(name: str) -> NamedAttack:
    """Returns the attack of a name.

    Raises:
        ConfigError: There is none.
    """
    if name == "fgsm":
        return NamedAttack(name, "fgsm", ("ce",), 1)
    if name == "noise":
        return NamedAttack(name, "noise", ("ce",), 0)
    match = _FORM.fullmatch(name)
    if match is None or int(match[2]) < 1:
        raise ConfigError("unknown attack", received=name, accepted=EXAMPLES, fix="the number is the number of steps")
    kind, losses = _KINDS[match[1]]
    return NamedAttack(name, kind, losses, int(match[2]))
