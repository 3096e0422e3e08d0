"""The README's table of models is the catalog's. `test_docs` holds the rest of the docs."""

from local.models import README, with_table


def test_the_table_of_models_is_the_catalogs() -> None:
    readme = README.read_text()

    assert readme == with_table(readme), "the catalog has changed: run `make events`"
