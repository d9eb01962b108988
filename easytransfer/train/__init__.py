"""The loop and what belongs to it. The package can be called: `easytransfer.train(modelName=...)`."""

from __future__ import annotations

import sys
import types
from typing import Any

from easytransfer import applications


class _Train(types.ModuleType):
    # A function of this name in `easytransfer` would be gone as soon as anybody imports this package.
    def __call__(self, **settings: Any) -> Any:
        """Trains as `easy_transfer_app train` does, and returns the model as `easytransfer.load` does.

        Args:
            **settings: Flags of the command, such as `modelName="text_classify_bert"`. Tables are paths or frames of
                pandas; `set` and `advancedParameters` are mappings.

        Returns:
            The model; its `result` is what the command prints.

        Raises:
            EasyTransferError: What the command ends with.
        """
        return applications().train(**settings)


sys.modules[__name__].__class__ = _Train
