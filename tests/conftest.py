"""Fixtures shared by all tests."""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import at_every_commit
import group_order
import pytest
from export_kinds import ChecksOfOneKind
from training import without_export

import easytransfer  # noqa: F401 - sets TensorFlow's environment before a test module imports TensorFlow
from easytransfer.export import validate as export_checks
from easytransfer.run import log

# Before a module that exports takes the function from there.
CHECKS = export_checks.validate = ChecksOfOneKind(export_checks.validate)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-durations", action="store_true", help="write tests/durations.json, for their order")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--record-durations", default=False) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(group_order.Recorder())


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps tests that share a costly fixture in one process; of several processes each begins with what takes long."""
    left_to_all = {Path(__file__).parent / name for name in at_every_commit.FILES}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_order.group_of(item)))
        if item.path in left_to_all:
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):
        items[:] = group_order.ordered(items, json.loads(group_order.DURATIONS.read_text(encoding="utf-8")))


@pytest.fixture(scope="session", autouse=True)
def kinds_of_exports(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The processes of one test run share a folder of the kinds of exports that were checked."""
    base = tmp_path_factory.getbasetemp()
    CHECKS.folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.hookimpl(tryfirst=True)  # before the fixtures of the test export something
def pytest_runtest_setup(item: pytest.Item) -> None:
    CHECKS.every = item.get_closest_marker("every_check") is not None


@pytest.fixture(autouse=True)
def one_random_state(request: pytest.FixtureRequest) -> None:
    """Weights that a test draws are the same in every run: a network of dead units would else fail it now and then."""
    from easytransfer import keras

    # A seed makes TensorFlow forget functions that are ready to run, and a decoder of images takes seconds to get so.
    if request.node.get_closest_marker("draws_nothing"):
        return

    keras.utils.set_random_seed(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    return group_order.REPOSITORY


@pytest.fixture(autouse=True)
def messages_for_people() -> Iterator[None]:
    """A test that has messages written as JSON leaves no such form to the next one."""
    yield
    if logging.getLogger(log.LOGGER).handlers:
        log.setup_logging()


@pytest.fixture(autouse=True)
def no_running_application() -> Iterator[None]:
    """Forgets the configuration that a `base_model` of a test leaves to readers, writers and preprocessors."""
    yield
    if "easytransfer.compat.application" in sys.modules:
        from easytransfer.compat import datasets, model_zoo, preprocessors

        datasets.TableReader.default_data, datasets.BatchWriter.default_overwrite = None, False
        preprocessors.TextPreprocessor.default_settings = None
        model_zoo.set_model_root(None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("EZ_SHARED", group_order.REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"real data sets not found at {folder}; set EZ_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded two-layer BERT folder with a small vocabulary."""
    from modelzoo.commands import make_tiny

    folder = tmp_path_factory.mktemp("zoo") / "tiny-bert"
    make_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def browser():
    """Chromium; see `page_browser.Browser`."""
    pytest.importorskip("selenium")
    from page_browser import Browser

    try:
        found = Browser()
    except LookupError as error:
        pytest.skip(str(error))
    yield found
    found.driver.quit()


# In a smoke configuration: a setting that takes the run folder of another one, which is trained first.
_NEEDS = re.compile(r"^# Needs: (\S+) = the run of (\S+)$", re.MULTILINE)


@pytest.fixture(scope="session")
def needed_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], dict[str, Path]]:
    """Function from a smoke configuration to the settings that name runs it needs; each is made once, not exported."""
    made: dict[str, Path] = {}

    def runs(path: Path) -> dict[str, Path]:
        found = {}
        for setting, config in _NEEDS.findall(path.read_text(encoding="utf-8")):
            if config not in made:
                made[config] = tmp_path_factory.mktemp("needed") / "run"
                _train(config, made[config])
            found[setting] = made[config]
        return found

    return runs


def _train(config: str, run_dir: Path) -> None:
    from appzoo import jobs
    from appzoo.cli.reader import JobReader

    with pytest.MonkeyPatch.context() as patch, without_export():
        patch.chdir(group_order.REPOSITORY)
        words = [f"--config={config}", f"--set=checkpoint_dir={run_dir}"]
        jobs.train(JobReader("train", words, []).read().config)
