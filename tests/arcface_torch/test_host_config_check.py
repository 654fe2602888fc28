"""The real arcface_torch, patched, does not train a config that cannot be meant."""

import pytest
from helpers.host import side_by_side


@pytest.fixture(scope="module")
def runs(host, teacher, few_records):
    """By what is wrong; the misspelt entry on two processes, the last a plain run as ever."""
    entry = {"teacher": {"network": "swin_mini", "weights": teacher}}
    fits = {"rec": few_records, "num_classes": 3, "num_image": 12, "batch_size": 4}
    names = ("misspelt", "classes", "plain")
    return dict(
        zip(
            names,
            side_by_side(
                lambda: host.train("misspelt", processes=2, check=False, cadk=entry, **fits),
                lambda: host.train("classes", check=False, **fits | {"num_classes": 2}),
                lambda: host.train(
                    "plain", **fits | {"num_classes": 4, "batchsize": 8, "loss": "cosface"}
                ),
            ),
            strict=True,
        )
    )


@pytest.mark.parametrize(
    "name, said",
    [("misspelt", "did you mean 'cakd'?"), ("classes", "num_classes is 2, but")],
)
def test_it_ends_in_one_line_before_anything_is_written(runs, name, said):
    run = runs[name]
    assert run.code == 1
    # Said once, and where torchrun started the processes again in its report, of each of them.
    parts = [line.partition("arcface-cakd: error: ") for line in run.err.splitlines()]
    lines = [line for _, found, line in parts if found]
    assert len(set(lines)) == 1 and said in lines[0]
    assert name == "misspelt" or len(lines) == 1
    assert all(record["losses"] == [] for record in run.records)
    assert not run.output.exists()


def test_what_may_be_meant_trains_and_is_said(runs):
    run = runs["plain"]
    assert len(run.losses) == 3
    for words in ("did you mean 'batch_size'", "loss 'cosface' has no effect", "num_classes is 4"):
        assert run.err.count(words) == 1, words
