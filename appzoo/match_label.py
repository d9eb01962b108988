"""Which of two labels says that two things match: the one that is named, or the one whose word is known."""

from __future__ import annotations

import re
from collections.abc import Sequence

from easytransfer.data.label_names import likeness, number_text
from easytransfer.errors import ConfigError

MATCHING = frozenset(
    "1 true yes y t match matches matched matching same similar duplicate duplicates duplicated paraphrase paraphrases "
    "relevant related equivalent equal equals identical entailment entails positive pos correct right good "
    "是 匹配 相似 相同 相关 重复 一致 正".split()
)
OTHER = frozenset(
    "0 -1 false no n f none different differs other unique contradiction contradicts neutral negative neg incorrect "
    "wrong bad random unlike distinct 否 不是 不同 无关 负".split()
)
# What makes the opposite of a known word, as in `not_duplicate`, `nonmatch`, `irrelevant` and `不相似`.
_NOT = re.compile(r"(not|non|no|un|dis|ir|in|mis|不|非|未)")
_IS = re.compile(r"^(is|are)(?=.)")
_BETWEEN = re.compile(r"[\W_]+")


def says_match(label: str) -> bool | None:
    """Returns whether a label says that the texts match, None where its word is not known."""
    number = likeness(label)
    if number in ("0", "-1", number_text(1.0)):
        return number == "1"
    word = _IS.sub("", _BETWEEN.sub("", number))
    if word in MATCHING or word in OTHER:
        return word in MATCHING
    negated = _NOT.match(word)
    if negated and (rest := _IS.sub("", word[negated.end() :])) in MATCHING | OTHER:
        return rest in OTHER
    return None


def match_last(labels: Sequence[str], named: str | None, listed: bool) -> list[str]:
    """Returns two labels with the one that says that the texts match second.

    Args:
        labels: The two labels.
        named: The matching one as `model.match_label` names it; None recognises it by its word.
        listed: Whether the user has given the labels in an order, in which the match is second.

    Raises:
        ConfigError: It cannot be told which one it is, or the list has it first.
    """
    match = labels.index(named) if named in labels else _recognised(labels)
    if named is not None and named not in labels:
        raise ConfigError("model.match_label is none of the labels", received=named, accepted=labels)
    if match is None and not listed:
        raise ConfigError(
            "it is not known which of the two labels says that the texts match",
            received=", ".join(labels),
            fix=f"name it: --set model.match_label={labels[1]}, or list both with the match second: "
            f"--labelEnumerateValues={','.join(labels)}",
        )
    if match == 0 and listed:
        raise ConfigError(
            "labelEnumerateValues lists the label that says that the texts match first, and it must be second",
            received=",".join(labels),
            fix=f"give --labelEnumerateValues={','.join(reversed(labels))}, or name the match if it is the other one: "
            f"--set model.match_label={labels[1]}",
        )
    return [labels[1 - match], labels[match]] if match is not None else list(labels)


def _recognised(labels: Sequence[str]) -> int | None:
    """Returns the place of the matching label where the words tell, None where they do not or contradict each other."""
    said = [says_match(label) for label in labels]
    if said[0] == said[1]:
        return None
    return said.index(True) if True in said else 1 - said.index(False)
