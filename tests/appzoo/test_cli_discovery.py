"""From model names to application folders, without importing the others."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

import appzoo
from appzoo import discovery
from easytransfer.errors import ConfigError

CONFIG = """
from easytransfer.config.job import JobConfig
class Config(JobConfig):
    '''Made for a test.'''
VARIANTS = dict.fromkeys({variants!r}, Config)
"""


def make_app(folder, variants, config=CONFIG):
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "config.py").write_text(config.format(variants=variants))
    (folder / "app.py").write_text(f"class Application: pass\nVARIANTS = dict.fromkeys({variants!r}, Application)\n")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Adds application folders to appzoo: nested names, a broken one, and a folder that is no application."""
    make_app(tmp_path / "zz_match", ("bert", "bert_two_tower"))
    make_app(tmp_path / "zz_match_long", ("", "bert"))
    make_app(tmp_path / "zz_broken", (), "raise RuntimeError('imported')")
    (tmp_path / "zz_nothing").mkdir()
    monkeypatch.setattr(appzoo, "__path__", [*appzoo.__path__, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("appzoo.zz_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("model_name", "name", "variant"),
    [
        ("zz_match_bert", "zz_match", "bert"),
        ("zz_match_bert_two_tower", "zz_match", "bert_two_tower"),
        ("zz_match_long", "zz_match_long", ""),
        ("zz_match_long_bert", "zz_match_long", "bert"),
        ("text_classify_bert", "text_classify", "bert"),
    ],
)
def test_longest_folder_name_wins(folders, model_name, name, variant):
    application, found = discovery.resolve(model_name)
    assert (application.name, found) == (name, variant)
    assert model_name in application.model_names
    assert "appzoo.zz_broken.config" not in sys.modules


def test_only_the_named_application_is_imported(folders):
    assert discovery.load_application("zz_match_bert").__name__ == "Application"
    assert {name for name in sys.modules if name.startswith("appzoo.zz_")} == {
        "appzoo.zz_match",
        "appzoo.zz_match.config",
        "appzoo.zz_match.app",
    }


@pytest.mark.parametrize(
    ("model_name", "part"),
    [
        ("zz_match_cnn", "zz_match has no variant cnn; accepted: zz_match_bert, zz_match_bert_two_tower"),
        ("zz_match", "names no variant; accepted: zz_match_bert"),
        ("zz_match_brt", "did you mean zz_match_bert"),
    ],
)
def test_unknown_variants(folders, model_name, part):
    with pytest.raises(ConfigError) as error:
        discovery.resolve(model_name)
    assert part in str(error.value)


def test_unknown_applications_name_the_nearest():
    with pytest.raises(
        ConfigError, match="unknown modelName; got 'text_clasify_bert'.*did you mean text_classify_bert"
    ):
        discovery.resolve("text_clasify_bert")


def test_other_packages_register_by_entry_point(tmp_path, monkeypatch):
    make_app(tmp_path / "zz_other" / "ranking", ("bert",))
    (tmp_path / "zz_other" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = importlib.metadata.EntryPoint("zz_ranking", "zz_other.ranking", discovery.ENTRY_POINTS)
    monkeypatch.setattr(discovery, "_entry_points", lambda: (entry,))
    application, variant = discovery.resolve("zz_ranking_bert")
    assert (application.package, variant) == ("zz_other.ranking", "bert")
    assert application.variants["bert"].__doc__ == "Made for a test."


def test_a_registered_name_may_not_hide_a_folder(monkeypatch):
    entry = importlib.metadata.EntryPoint("text_classify", "other.app", discovery.ENTRY_POINTS)
    monkeypatch.setattr(discovery, "_entry_points", lambda: (entry,))
    with pytest.raises(ConfigError, match="exists already"):
        discovery.applications()
