"""An application written for the earlier names of the contract is refused, not run without what it does."""

import pytest

from easytransfer.app.contract import App
from easytransfer.app.renamed import APP_MOVED
from easytransfer.app.targets.base import Target
from easytransfer.config.job import JobConfig
from easytransfer.errors import ConfigError

NAMES = {"prepare": "load_assets", "fit_labels": "on_train_table", "spread": "explode", "rows": "postprocess"}


@pytest.mark.parametrize(
    ("base", "earlier", "present"), [*((App, *pair) for pair in NAMES.items()), (Target, "rows", "postprocess")]
)
def test_a_class_with_an_earlier_name_is_refused(base, earlier, present):
    with pytest.raises(ConfigError, match=f"Mine.{earlier} is called {present} now.*rename it to {present}"):
        type("Mine", (base,), {earlier: lambda self: None})
    assert hasattr(base, present)


def test_a_class_that_defines_what_has_moved_is_refused():
    for earlier, present in APP_MOVED.items():
        with pytest.raises(ConfigError) as raised:
            type("Mine", (App,), {earlier: lambda self: None})
        assert str(raised.value).startswith(f"Mine.{earlier} has moved: it is {present} now")
        with pytest.raises(AttributeError, match=f"no attribute '{earlier}'; it has moved: it is {present[:12]}"):
            getattr(App(JobConfig(model_name="mine")), earlier)


def test_a_call_by_an_earlier_name_is_told_the_present_one():
    app = App(JobConfig(model_name="mine"))
    for earlier, present in NAMES.items():
        with pytest.raises(AttributeError, match=f"'App' has no attribute '{earlier}'; it is called {present} now"):
            getattr(app, earlier)
    with pytest.raises(AttributeError, match="'App' has no attribute 'no_such_name'$"):
        app.no_such_name  # noqa: B018
