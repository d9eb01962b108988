"""The table of `docs/applications.md` says which tests run what for which application; this keeps it true."""

import ast
import re
from pathlib import Path

from at_every_commit import FILES, ONLY_IN_ALL, TOYS, variant_of

from appzoo import discovery

PAGE, TESTS = Path("docs", "applications.md"), Path(__file__).parent
CONTRACT = "appzoo/test_contract.py"
# Column of the table -> the test that runs it for every application, or for every variant.
COLUMNS = {
    "train": (CONTRACT, "test_smoke_run_learns_and_reaches_its_score"),
    "evaluate": (CONTRACT, "test_saved_model_evaluates_as_in_training"),
    "predict": (CONTRACT, "test_predicted_rows_have_the_declared_columns"),
    "export, serve": (CONTRACT, "test_export_answers_like_the_model"),
    "resume": (CONTRACT, "test_stopped_and_resumed_run_equals_an_unbroken_one"),
    "bad input": ("integration/test_bad_input.py", "test_every_application_refuses_unusable_tables"),
}


def expected_rows() -> list[list[str]]:
    rows = []
    for application in discovery.applications().values():
        names = dict(zip(application.model_names, application.variants, strict=True))
        for name, variant in names.items():
            smoke = "commit" if variant == variant_of(application.name) else "slow"
            rows.append([name, *("commit" if column == "bad input" else smoke for column in COLUMNS)])
    return rows


def test_the_table_has_every_application_and_variant(repository):
    lines = [line for line in (repository / PAGE).read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    assert header == ["application", *COLUMNS]
    assert rows == expected_rows()


def test_the_tests_it_names_exist_and_take_what_it_says(repository):
    page = (repository / PAGE).read_text(encoding="utf-8")
    for column, (file, test) in COLUMNS.items():
        functions = [node for node in ast.parse((TESTS / file).read_text()).body if isinstance(node, ast.FunctionDef)]
        assert test in [function.name for function in functions], column
        assert re.search(rf"`tests/{re.escape(file)}`", page), column


def test_what_is_left_to_all_is_there_and_is_listed(repository):
    page = (repository / PAGE).read_text(encoding="utf-8")
    for file, guards in FILES.items():
        assert [name for name in (file, *guards) if not (TESTS / name).is_file()] == []
        assert file not in guards and f"`tests/{file}`" in page, file
        assert all(f"`{Path(name).name}`" in page for name in guards), file
    assert discovery.applications().keys() >= ONLY_IN_ALL
    assert {f"{toy}.py" for toy in TOYS} <= {path.name for path in (TESTS / "fixtures" / "toy_apps").iterdir()}


def test_what_is_left_to_all_is_marked_slow(request):
    """Whatever this run has of them, it has as slow tests."""
    left = {TESTS / name for name in FILES}
    assert [
        item.name for item in request.session.items if item.path in left and not item.get_closest_marker("slow")
    ] == []
