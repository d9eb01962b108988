"""Members of the contract by their earlier names: who still writes or calls one is told the present name."""

from __future__ import annotations

from easytransfer.errors import ConfigError

# Of applications. An application that kept one would else be trained without what it does.
APP_MEMBERS = {
    "prepare": "load_assets",
    "fit_labels": "on_train_table",
    "spread": "explode",
    "rows": "postprocess",
}
# What applications once defined and is elsewhere now.
APP_MOVED = {
    "answer": "Target.answer",
    "served_step": "predict_step",
    "served_model": "predict_step",
    "compiled_model": "compiled_part of the network",
    "text_vector": "text_vector of the network",
    "two_towers": "Input.reads_apart",
    "preprocessable": "Input.preprocessable",
    "no_decay": "OptimizerPart.no_decay, of optimizers()",
    "optimizer_settings": "OptimizerPart.settings, of optimizers()",
}
TARGET_MEMBERS = {"rows": "postprocess"}


def refuse_earlier_names(kind: type, renamed: dict[str, str]) -> None:
    """Checks what a class defines itself.

    Args:
        kind: A subclass of `App` or `Target`.
        renamed: Present names by earlier ones.

    Raises:
        ConfigError: The class defines a member by an earlier name.
    """
    for earlier, present in renamed.items():
        if earlier in vars(kind):
            raise ConfigError(f"{kind.__name__}.{earlier} is called {present} now", fix=f"rename it to {present}")


def refuse_moved(kind: type) -> None:
    """Checks that an application defines nothing that is elsewhere now.

    Raises:
        ConfigError: It does.
    """
    for earlier, present in APP_MOVED.items():
        if earlier in vars(kind):
            raise ConfigError(f"{kind.__name__}.{earlier} has moved: it is {present} now", fix=f"define {present}")


def no_attribute(kind: type, name: str, renamed: dict[str, str]) -> AttributeError:
    """Returns the error for an attribute that is not there, with its present name where it has another one."""
    present = f"; it is called {renamed[name]} now" if name in renamed else ""
    if name in APP_MOVED and renamed is APP_MEMBERS:
        present = f"; it has moved: it is {APP_MOVED[name]} now"
    return AttributeError(f"{kind.__name__!r} has no attribute {name!r}{present}")
