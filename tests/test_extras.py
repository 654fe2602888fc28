"""Packages that not everyone needs: why one is not to be had is one line."""

import sys

import pytest

from arcface_cakd.extras import MissingPackageError, extra


def test_a_package_that_is_not_there_is_named_with_what_brings_it():
    with pytest.raises(MissingPackageError) as error:
        extra("no_such_package.part", "report", "picture p.png")
    assert str(error.value) == (
        "picture p.png needs the package no_such_package: pip install 'arcface_cakd[report]', or "
        "pip install no_such_package"
    )


def test_a_package_that_is_too_new_for_another_says_so(tmp_path, monkeypatch):
    (tmp_path / "too_new.py").write_text(
        "raise ImportError('too_new requires NumPy 2.0 or\\nnewer, found 1.26.4')"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(MissingPackageError) as error:
        extra("too_new", "parquet", "reading a.parquet")
    assert str(error.value) == (
        "reading a.parquet needs the package too_new, which does not import here: too_new requires "
        "NumPy 2.0 or newer, found 1.26.4"
    )


def test_what_a_package_lacks_itself_it_says_itself(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text("import no_such_package")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        extra("half", "parquet", "reading a.parquet")
