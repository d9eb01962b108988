"""Configuration of adversarial training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator, model_validator

from appzoo.adversarial_training.attacks.names import STEP_SHARE, named_attack
from appzoo.image_settings import ImageJobConfig
from easytransfer.config.schema import ConfigModel, setting
from easytransfer.errors import EasyTransferError
from modelzoo.cnn.names import named

# RobustBench's radii.
_USUAL_EPSILON = {"linf": 8 / 255, "l2": 0.5}


class AdversarialSettings(ConfigModel):
    """The attack in training and in evaluation, and the weight of the robust term."""

    adv_method: Literal["trades", "pgd"] = setting(
        "trades",
        "Robust term: trades, divergence between the predictions for natural and changed images; pgd, rise of the "
        "cross entropy.",
        advanced=True,
        modes="T",
    )
    adv_lambda: float = setting(
        6.0, "Weight of the robust term; with sqrt and war that of the thin network.", advanced=True, modes="T", ge=0
    )
    adv_lambda_mode: Literal["fixed", "sqrt", "war"] = setting(
        "fixed",
        "fixed; sqrt, times the root of how many times as wide as thin_network the network is; war, moved during "
        "training so that natural and robust risk have the ratio of the thin network.",
        advanced=True,
        modes="T",
    )
    thin_network: str | None = setting(None, "Network that adv_lambda was tuned on.", advanced=True, modes="T")
    war_zeta: str | None = setting(
        None,
        "Ratio of natural to robust risk that war keeps: a number, or the run folder of the thin network.",
        advanced=True,
        modes="T",
        path="one",
    )
    war_alpha: float | None = setting(
        None, "Step of lambda under war; default 0.8 / steps per epoch.", advanced=True, modes="T", gt=0
    )
    war_lambda_max: float = setting(60.0, "Largest lambda under war.", advanced=True, modes="T", gt=0)
    war_skip_epochs: float = setting(2.0, "Epochs before war first moves lambda.", advanced=True, modes="T", ge=0)
    war_freeze_epoch: float | None = setting(
        None, "Epochs after which war leaves lambda as it is; never by default.", advanced=True, modes="T", gt=0
    )
    norm: Literal["linf", "l2"] = setting("linf", "Norm of the changes.", advanced=True, modes="TE")
    epsilon: float = setting(
        0.031, "Largest change, for pixels from 0 to 1, in training and evaluation.", advanced=True, modes="TE", gt=0
    )
    attack_steps: int = setting(10, "Steps of the attack in training.", advanced=True, modes="TE", ge=1)
    attack_step_size: float | None = setting(
        None, "Their size; default 7/31 of epsilon.", advanced=True, modes="TE", gt=0
    )
    start_deviation: float = setting(
        0.001, "Deviation of the normal noise that the attack in training starts with.", advanced=True, modes="TE", ge=0
    )
    eval_attack: str = setting(
        "pgd20",
        "Attack of every evaluation: fgsm, pgd20, cw20, kl10, apgd_ce100, apgd_dlr100, apgd100 (the number is that of "
        "steps), or none.",
        advanced=True,
        modes="TE",
    )
    eval_step_size: float | None = setting(
        None, "Step size of pgd, cw and kl in evaluation; default 7/31 of epsilon.", advanced=True, modes="TE", gt=0
    )

    @field_validator("eval_attack")
    @classmethod
    def _known(cls, value: str) -> str:
        return value if value == "none" else _checked_attack(value)

    @property
    def step_size(self) -> float:
        """Step size of the attack in training."""
        return self.attack_step_size or STEP_SHARE * self.epsilon


class RobustnessSettings(ConfigModel):
    """The robustness report."""

    report_rows: int = setting(
        0, "First rows of the evaluation table the robustness report attacks; 0 = no report.", advanced=True,
        modes="TE", ge=0,
    )  # fmt: skip
    report_epsilon: float | None = setting(
        None, "Radius of the report; default that of RobustBench, 8/255 or 0.5 (l2).", advanced=True, modes="TE", gt=0
    )
    report_attacks: list[str] = setting(
        ["pgd20", "cw20", "apgd100"], "Attacks of the report; the first draws the curve.", advanced=True, modes="TE"
    )
    report_factors: list[float] = setting(
        [0.25, 0.5, 1.5, 2.0, 4.0], "Further radii of the curve, in multiples of the first.", advanced=True, modes="TE"
    )

    @field_validator("report_attacks")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("report_attacks needs one attack at least")
        return [_checked_attack(name) for name in value]

    @field_validator("report_factors")
    @classmethod
    def _positive(cls, value: list[float]) -> list[float]:
        if any(factor <= 0 for factor in value):
            raise ValueError(f"report_factors={value} must be above 0")
        return value

    def epsilon(self, norm: str) -> float:
        """Returns the radius of the report."""
        return self.report_epsilon or _USUAL_EPSILON[norm]


class AdversarialTrainingConfig(ImageJobConfig):
    """Train an image classifier against attacks on its input."""

    adversarial: AdversarialSettings = AdversarialSettings()
    robustness: RobustnessSettings = RobustnessSettings()

    @model_validator(mode="after")
    def _check_adversarial(self) -> AdversarialTrainingConfig:
        chosen = self.adversarial
        if chosen.adv_lambda_mode == "war":
            self._check_war()
        if chosen.adv_lambda_mode == "sqrt":
            if chosen.thin_network is None:
                raise ValueError("adversarial.adv_lambda_mode=sqrt needs adversarial.thin_network")
            width_ratio(self.model.network, chosen.thin_network)
        if self.augment.mixup_alpha:
            raise ValueError("augment.mixup_alpha must be 0: attacks need one label per image")
        if self.train.class_weights:
            raise ValueError("train.class_weights cannot be used: the robust term has no class weights")
        if self.runtime.mixed_precision == "float16":
            # Its loss scale does not reach the gradients of the attack, which would round to zero.
            raise ValueError("runtime.mixed_precision=float16 cannot be used with attacks; use bfloat16")
        return self

    def _check_war(self) -> None:
        chosen = self.adversarial
        if chosen.war_zeta is None:
            raise ValueError("adversarial.adv_lambda_mode=war needs adversarial.war_zeta: a number or a run folder")
        if not _is_number(chosen.war_zeta):
            if not Path(chosen.war_zeta).is_dir() and self.checkpoint_path is None:
                raise ValueError(f"adversarial.war_zeta={chosen.war_zeta} is neither a number nor a run folder")
        elif not float(chosen.war_zeta) > 0:
            raise ValueError(f"adversarial.war_zeta={chosen.war_zeta} must be above 0")
        if chosen.adv_lambda > chosen.war_lambda_max:
            raise ValueError(f"adversarial.adv_lambda={chosen.adv_lambda} is above adversarial.war_lambda_max")


def width_ratio(network: str, thin: str) -> float:
    """Returns how many times as wide as network `thin` another one of the same family is.

    Raises:
        ValueError: A name is unknown, or the networks differ in more than their width.
    """
    try:
        wide_shape, thin_shape = named(network), named(thin)
    except EasyTransferError as error:
        raise ValueError(f"adversarial.thin_network: {error}") from error
    stages = (wide_shape.stage_widths, thin_shape.stage_widths)
    same = (wide_shape.family, wide_shape.blocks) == (thin_shape.family, thin_shape.blocks)
    if not same or not stages[0] or len(stages[0]) != len(stages[1]):
        raise ValueError(f"adversarial.thin_network={thin} does not differ from model.network={network} in width only")
    return stages[0][-1] / stages[1][-1]


def _checked_attack(name: str) -> str:
    try:
        return named_attack(name).name
    except EasyTransferError as error:
        raise ValueError(str(error)) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


VARIANTS = {"": AdversarialTrainingConfig}
