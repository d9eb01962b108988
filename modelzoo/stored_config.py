"""What the configurations of all families share: read strictly, changed by name. Imports no TensorFlow."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from easytransfer.errors import ConfigError, ModelError, did_you_mean


class StoredConfig(BaseModel):
    """Configuration of a network as a config.json has it.

    A family sets `FAMILY` and may override `from_dict`, which turns spellings of files into fields and calls `checked`.

    Attributes:
        FAMILY: What a file describes, in messages, such as `a T5`.
    """

    FAMILY: ClassVar[str]

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, source: str = "configuration") -> Self:
        """Builds a configuration from the contents of a JSON file.

        Raises:
            ModelError: A value is not accepted.
        """
        return cls.checked(data, source)

    @classmethod
    def checked(cls, data: dict[str, Any], source: str) -> Self:
        """Builds a configuration of fields.

        Raises:
            ModelError: A value is not accepted; the message names `source` and every field that is wrong.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, e['loc'])) or 'sizes'}: {e['msg']}" for e in error.errors()]
            raise ModelError(f"{source} does not describe {cls.FAMILY}: " + "; ".join(problems)) from None

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed.

        Raises:
            ConfigError: A name is not a field, or the values are not accepted or do not fit together.
        """
        for name in changes:
            if name not in type(self).model_fields:
                raise ConfigError(f"unknown model setting {name}", fix=did_you_mean(name, type(self).model_fields))
        try:
            return type(self).from_dict({**self.model_dump(), **changes}, source="changed configuration")
        except ModelError as error:
            raise ConfigError(str(error)) from None
