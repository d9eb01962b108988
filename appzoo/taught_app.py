"""Applications that learn from a frozen teacher, which is no part of their model: never trained, saved or exported."""

from __future__ import annotations

from typing import Any, ClassVar

from appzoo.distilled_label import StudentLabel
from appzoo.text_teacher import ROLE, Teacher
from easytransfer.app.contract import App, Assets
from easytransfer.app.frozen import Frozen
from easytransfer.app.targets.labels import label_target
from easytransfer.errors import ConfigError


class TaughtApp(App):
    """An application whose `distillation` settings are `TeacherSettings`."""

    splits: ClassVar[tuple[str, ...]] = ()

    # With `frozen`; None where nothing is learnt from one, and outside of a training.
    teacher: Any = None

    def make_teacher(self, path: str) -> Any:
        """Opens a teacher and makes sure that it fits.

        Args:
            path: What `distillation.teacher` names.

        Raises:
            ModelError: It is not usable or does not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} opens no teacher")

    def open_frozen(self) -> dict[str, Frozen]:
        """Opens the teacher, where one is learnt from.

        Raises:
            ConfigError: None is given.
            ModelError: It is not usable or does not fit.
        """
        settings = self.config.distillation
        if not settings.needs_teacher:
            return {}
        if settings.teacher is None:
            name = settings.needs_teacher.partition("=")[0]
            off = settings.without_teacher if settings.without_teacher.startswith(name) else f"{name}=0"
            raise ConfigError(
                f"distillation.{settings.needs_teacher} needs a teacher",
                fix=f"give the run folder of one with --teacher=RUN, or set distillation.{off}",
            )
        self.teacher = self.make_teacher(settings.teacher)
        return {ROLE: self.teacher.frozen}


class TaughtClassifier(TaughtApp):
    """One class for one text or a pair, with any classifier of them as teacher.

    Attributes:
        purpose: What needs classes, for a message.
    """

    purpose: ClassVar[str]

    target: StudentLabel
    teacher: Teacher | None = None

    def build_target(self, assets: Assets) -> StudentLabel:
        """Returns the classes.

        Raises:
            ConfigError: There are none.
        """
        target = label_target(self.config, assets, StudentLabel, numbers=False)
        target.require_classes(self.purpose)
        return target

    def make_teacher(self, path: str) -> Teacher:
        """Opens a teacher with the student's classes; see `Teacher`."""
        return Teacher(path, self.target, self.inputs, self.config.data)
