"""Optimizers and learning-rate schedules."""

from easytransfer.optim.adamw import AdamW
from easytransfer.optim.adaptive import Adadelta, Adagrad
from easytransfer.optim.base import Optimizer
from easytransfer.optim.build import build_optimizer, build_schedule
from easytransfer.optim.lamb import LAMB
from easytransfer.optim.schedule import SCHEDULES, Schedule
from easytransfer.optim.sgd import SGD

__all__ = [
    "LAMB",
    "SCHEDULES",
    "SGD",
    "Adadelta",
    "Adagrad",
    "AdamW",
    "Optimizer",
    "Schedule",
    "build_optimizer",
    "build_schedule",
]
