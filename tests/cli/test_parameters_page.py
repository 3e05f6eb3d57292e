"""docs/parameters.md is what the code says, and each parameter has its line."""

import importlib.util

import pytest

from prompt_tuning.cli.command_settings import SETTINGS
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.cli.parameter_meanings import MEANINGS


@pytest.fixture(scope="module")
def parameters_page(checkout):
    spec = importlib.util.spec_from_file_location("page", checkout / "docs" / "parameters.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(checkout, parameters_page):
    written = (checkout / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert written == parameters_page.page(), "run `make parameters`"


def test_every_parameter_has_a_meaning(parameters_page):
    assert parameters_page.without_meaning() == [], "add lines to cli/parameter_meanings.py"
    assert parameters_page.unknown_meanings() == []


@pytest.mark.parametrize("command", SETTINGS)
def test_help_names_settings_that_there_are(command):
    settings = SETTINGS[command]
    assert set(settings.macros) <= set(MACROS)
    assert len(set(settings.macros)) == len(settings.macros)
    assert set(settings.parameters) <= set(MEANINGS)


def test_the_index_names_every_page(checkout):
    index = (checkout / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (checkout / "docs").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" in index} == pages
