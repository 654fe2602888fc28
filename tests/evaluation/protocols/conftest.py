import pytest
from helpers.template_sets import make_templates


@pytest.fixture(scope="session")
def templates(tmp_path_factory):
    """A made set of 12 people in 48 templates."""
    return make_templates(tmp_path_factory.mktemp("ijbc"), people=12, probes=3)
