"""From a name such as `text_classify_bert` to its application folder, importing no other application."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import appzoo
from easytransfer.config.fields import settings_of
from easytransfer.config.job import JobConfig
from easytransfer.errors import ConfigError, closest

if TYPE_CHECKING:
    from easytransfer.app.arms import Arm
    from easytransfer.app.contract import App

ENTRY_POINTS = "easytransfer.apps"
# Takes the arguments of a command line to what is printed.
Command = Callable[[Sequence[str]], Any]


@dataclass(frozen=True)
class Application:
    """One application folder; nothing of it is imported before it is asked for.

    Attributes:
        name: Folder name, or the entry-point name for applications of other packages.
        package: Importable package that holds `config.py` and `app.py`, or one module with both: its `VARIANTS` are
            application classes, each with a `Config`.
    """

    name: str
    package: str

    @functools.cached_property
    def _module(self) -> ModuleType | None:
        """The one module of an application without a package; imports TensorFlow."""
        module = importlib.import_module(self.package)
        return None if hasattr(module, "__path__") else module

    @property
    def variants(self) -> dict[str, type[JobConfig]]:
        """Configuration class by variant; the empty one stands for the bare application name.

        Imports the light `config.py` only.
        """
        if self._module is not None:
            return {variant: app_class.Config for variant, app_class in self._module.VARIANTS.items()}
        variants: dict[str, type[JobConfig]] = importlib.import_module(f"{self.package}.config").VARIANTS
        return variants

    @property
    def model_names(self) -> list[str]:
        """Every accepted model name of this application."""
        return [f"{self.name}_{variant}" if variant else self.name for variant in self.variants]

    def register_forms(self) -> None:
        """Makes the tables it brings known, see `easytransfer.data.app_forms`; imports no more of it."""
        readers, writers = (self._forms(name) for name in ("readers", "writers"))
        # Reading of tables, and NumPy with it, is not what names and settings wait for.
        from easytransfer.data.app_forms import register

        register(readers, writers)

    def _forms(self, name: str) -> dict[str, Any]:
        """Returns the dict that one of its modules has under its own name, an empty one where there is no module."""
        if self._module is not None:
            return getattr(self._module, name.upper(), {})
        if importlib.util.find_spec(f"{self.package}.{name}") is None:
            return {}
        forms: dict[str, Any] = getattr(importlib.import_module(f"{self.package}.{name}"), name.upper())
        return forms

    def commands(self) -> dict[str, Command]:
        """Returns its own verbs of the command line, `COMMANDS` of its `commands.py`, a light module."""
        return self._forms("commands")

    def arms(self, variant: str) -> Mapping[str, Arm]:
        """Returns what an experiment compares, `ARMS[variant]` of its `arms.py`, a light module; empty without one."""
        return self._forms("arms").get(variant, {})

    def domains(self, variant: str) -> Mapping[str, str]:
        """Returns settings of tables by domain, `DOMAINS[variant]` of its `domains.py`: an experiment shows their rows.

        The module is a light one; the dict is empty without it.
        """
        return self._forms("domains").get(variant, {})

    def app_class(self, variant: str) -> type[App]:
        """Returns the application class of a variant; imports TensorFlow."""
        module = self._module or importlib.import_module(f"{self.package}.app")
        app_class: type[App] = module.VARIANTS[variant]
        return app_class


def applications() -> dict[str, Application]:
    """Finds the folders of `appzoo` with `app.py` and `config.py`, and what other packages register."""
    found: dict[str, Application] = {}
    for root in appzoo.__path__:
        for folder in sorted(Path(root).iterdir()):
            if (folder / "app.py").is_file() and (folder / "config.py").is_file():
                found[folder.name] = Application(folder.name, f"appzoo.{folder.name}")
    for entry in _entry_points():
        if entry.name in found:
            raise ConfigError(f"{entry.value} registers application {entry.name}, which exists already")
        found[entry.name] = Application(entry.name, entry.value)
    return found


@functools.cache
def _entry_points() -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=ENTRY_POINTS))


def resolve(model_name: str) -> tuple[Application, str]:
    """Finds the application with the longest name that begins `model_name`; the rest is the variant.

    Raises:
        ConfigError: If there is none, or it has no such variant; names the nearest ones.
    """
    known = applications()
    fitting = [name for name in known if model_name == name or model_name.startswith(name + "_")]
    if fitting:
        application = known[max(fitting, key=len)]
        variant = model_name[len(application.name) + 1 :]
        if variant in application.variants:
            application.register_forms()
            return application, variant
        choices = application.model_names
        what = f"modelName {model_name}: {application.name} has no variant {variant}"
        what = what if variant else f"modelName {model_name} names no variant"
        raise ConfigError(what, accepted=choices, fix=_meant(model_name, choices))
    choices = [name for application in known.values() for name in application.model_names]
    raise ConfigError("unknown modelName", received=model_name, accepted=choices, fix=_meant(model_name, choices))


def commands() -> dict[str, Command]:
    """Returns the verbs that applications bring; the first line of a docstring says what one does."""
    return {name: command for each in applications().values() for name, command in each.commands().items()}


def _meant(name: str, choices: list[str]) -> str | None:
    near = closest(name, choices)
    return "did you mean " + " or ".join(near) + "?" if near else None


def load_application(model_name: str) -> type[App]:
    """Imports and returns the application class of a model name; imports TensorFlow."""
    application, variant = resolve(model_name)
    return application.app_class(variant)


def find_application(model_name: str) -> tuple[type[JobConfig], type[App]]:
    """Returns the types of configuration and application of a model name; imports TensorFlow."""
    application, variant = resolve(model_name)
    return application.variants[variant], application.app_class(variant)


def check_named(origins: Mapping[str, str], flags: Iterable[str] = ()) -> None:
    """Checks, where no application is named, that nothing is given which only an application knows.

    Args:
        origins: Where each value came from, by its dotted path.
        flags: Flags that belong to no common setting.

    Raises:
        ConfigError: A key or flag belongs to applications: their name is what is missing.
    """
    common = {item.path for item in settings_of(JobConfig)}
    strange = {path: origin for path, origin in origins.items() if path not in common}
    if not strange and not flags:
        return
    classes = [each for application in applications().values() for each in application.variants.values()]
    known = [item for each in classes for item in settings_of(each)]
    paths, names = {item.path for item in known}, {name for item in known if item.flag for name in item.names}
    given = {path: origin for path, origin in strange.items() if path in paths}
    found = [origin if origin.startswith("--") else f"{path} in {origin}" for path, origin in given.items()]
    found += [f"--{name}" for name in flags if name in names]
    if found:
        raise ConfigError(
            f"no application is named, and {found[0]} belongs to one",
            fix="give --modelName, or model_name in the file; `easy_transfer_app apps` lists the applications",
        )


def config_class(model_name: str) -> type[JobConfig]:
    """Returns the configuration class of a model name without importing TensorFlow."""
    application, variant = resolve(model_name)
    return application.variants[variant]
