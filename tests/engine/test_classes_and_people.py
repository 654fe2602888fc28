"""A run's first lines: how many images, people and classes its data set has, and what differs."""

import logging

import pytest
from helpers.engine_runs import small_config
from helpers.record_sets import jpeg, write_records

from arcface_cakd.config import ConfigError
from arcface_cakd.data import DataError
from arcface_cakd.engine.builders import _build_loader


@pytest.fixture
def lines(caplog):
    """The log, from warnings to the rest."""
    caplog.set_level(logging.INFO, "arcface_cakd")
    return lambda: [(record.levelname, record.message) for record in caplog.records]


def opened(folder, label=float, **settings):
    write_records(folder, {n: (label(n % 4), jpeg(n)) for n in range(12)})
    return _build_loader(small_config(folder, folder / "out", **settings))


def test_all_is_well(tmp_path, lines):
    assert opened(tmp_path).num_classes == 4
    assert lines() == [("INFO", f"{tmp_path}: 12 images of 4 people, 4 classes")]


def test_gaps(tmp_path, lines):
    assert opened(tmp_path, lambda n: 10.0 * n).num_classes == 31
    (warning, told) = lines()
    assert warning[0] == "WARNING" and "31 classes for 4 people" in warning[1]
    assert told == ("INFO", f"{tmp_path}: 12 images of 4 people, 31 classes")


def test_a_number_of_classes_above_what_labels_need(tmp_path, lines):
    assert opened(tmp_path, num_classes=9).num_classes == 9
    (told, warning) = lines()
    assert told == ("INFO", f"{tmp_path}: 12 images of 4 people, 9 classes")
    assert warning == (
        "WARNING",
        f"num_classes is 9, but {tmp_path} has 4 identities: 5 class centres stand for nobody, and "
        "only push; set it to 4",
    )


@pytest.mark.parametrize("stated", [4, 5, 100])
def test_a_property_that_states_more_is_not_followed(tmp_path, lines, stated):
    (tmp_path / "property").write_text(f"{stated},112,112")
    assert opened(tmp_path, num_classes=4).num_classes == 4
    assert len(lines()) == (1 if stated == 4 else 2)


def test_too_few_classes_and_too_small_a_property_stop_the_run(tmp_path):
    with pytest.raises(ConfigError, match=r"num_classes is 3, but .* has 4 identities"):
        opened(tmp_path, num_classes=3)
    (tmp_path / "property").write_text("3,112,112")
    with pytest.raises(DataError, match="says 3 identities, but labels are 0 to 3"):
        opened(tmp_path)
