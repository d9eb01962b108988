"""Configuration of matching texts with images."""

from __future__ import annotations

from appzoo.settings import TargetSettings
from appzoo.vision_language_settings import VisionLanguageConfig, VisionLanguageDataConfig, VisionLanguageSettings
from easytransfer.config.schema import setting


class MatchDataConfig(VisionLanguageDataConfig):
    """Tables of pairs of a text and an image."""

    label_name: str | None = setting("label", "Column that says whether text and image match.", modes="TEPS")
    label_enumerate_values: str | None = setting(
        "auto",
        "The two labels, the match second: comma list, a file with one per line, or `auto`.",
        modes="TEPS",
        path="one",
    )
    list_column: str | None = setting(
        None,
        "Column of both tables that tells candidate lists apart: a list is one match and others, and its rows are "
        "ranked.",
        modes="TE",
    )


class MatchSettings(VisionLanguageSettings, TargetSettings):
    """Network, and what is measured with it."""

    match_label: str | None = setting(
        None,
        "The label that says that text and image match; without it words such as match, 1, true and relevant are "
        "known, and of listed labels it is the second.",
        advanced=True,
        modes="TS",
    )
    gallery_pairs: int = setting(
        10_000,
        "Most pairs of a text and an image of the evaluation table that are scored for recall at k among all texts and "
        "images; more texts times images are not, which is told; 0: none.",
        advanced=True,
        modes="TE",
        ge=0,
    )


class MultimodalMatchConfig(VisionLanguageConfig):
    """Decide whether a text and an image belong together; rank images for texts, and texts for images."""

    data: MatchDataConfig = MatchDataConfig()
    model: MatchSettings = MatchSettings()


VARIANTS = {"": MultimodalMatchConfig}
