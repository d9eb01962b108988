"""Base of the applications on a T5: tokenizer, configuration and network of a preset, or as a run has stored them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import modelzoo.loading as zoo
from appzoo.encoder import add_adapters
from appzoo.t5_settings import T5Settings
from easytransfer.app.contract import App, Assets
from easytransfer.errors import ModelError
from easytransfer.run.atomic import write_json
from modelzoo.backbone import Backbone
from modelzoo.hub import obtain
from modelzoo.t5.backbone import T5Backbone
from modelzoo.t5.config import T5Config
from modelzoo.t5.tokenizer import T5Tokenizer

CONFIG_FILE = "config.json"


class T5App(App):
    """An application whose network is a T5.

    Attributes:
        tokenizer: Of the network.
        network_config: Its sizes.
    """

    asset_files: ClassVar[tuple[str, ...]] = (CONFIG_FILE,)

    def open_network(self, assets: Assets) -> None:
        """Reads tokenizer and configuration, from the ModelZoo or a trained run.

        Raises:
            ModelError: The model is not found, or no T5.
        """
        folder = assets.folder
        if folder is None:
            runtime, name = self.config.runtime, self._settings.pretrain_model_name_or_path
            preset = obtain(name, runtime.model_zoo_base_path, offline=runtime.offline)
            if (family := zoo.family_of(preset)) != "t5":
                raise ModelError(
                    f"{preset.folder} holds a model of the family {family}, which writes no text",
                    accepted="a T5",
                    fix="name one by model.pretrain_model_name_or_path",
                )
            folder = preset.folder
        self.tokenizer = T5Tokenizer.from_folder(folder)
        self.network_config = T5Config.from_folder(folder)

    @property
    def _settings(self) -> T5Settings:
        settings: T5Settings = self.config.model  # type: ignore[assignment]
        return settings

    def save_assets(self, folder: Path) -> None:
        """Writes tokenizer and configuration of the network."""
        super().save_assets(folder)
        write_json(folder / CONFIG_FILE, self.network_config.to_dict())

    def backbone(self, assets: Assets) -> T5Backbone:
        """Returns the network with its pre-trained weights, or with the shape stored in a run and random ones.

        With adapters it has its pre-trained weights in both cases: a run holds the adapters alone.
        """
        settings, seed = self._settings, self.config.runtime.seed
        lora = getattr(settings, "keeps_base", False)
        stored = assets.folder is not None and not lora
        changes = {} if settings.dropout_rate is None else {"dropout_rate": settings.dropout_rate}
        backbone = Backbone.from_preset(
            assets.folder if stored else settings.pretrain_model_name_or_path,
            zoo=self.config.runtime.model_zoo_base_path,
            weights=not stored and not settings.from_scratch,
            seed=seed,
            allow_missing=None if stored else settings.allow_missing,
            **changes,
        )
        if lora:
            add_adapters(backbone, settings, seed)
        return backbone
