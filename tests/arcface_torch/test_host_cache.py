"""In the real arcface_torch, a run from a teacher's cache is one without, within float16."""

import pytest
from helpers.host import side_by_side


def test_losses_are_those_of_a_run_without(host, teacher, few_records, tmp_path):
    def run(name, cache):
        return host.train(
            name,
            rec=few_records,
            num_classes=3,
            num_image=12,
            batch_size=4,
            cakd={
                "teacher": {"network": "swin_mini", "weights": teacher, "cache": cache},
                "prompts": None,
            },
        )

    with_it, without = side_by_side(
        lambda: run("cached", str(tmp_path / "cache")), lambda: run("not_cached", None)
    )
    assert "embedding, tokens of 12 images, both flips" in with_it.log
    assert "both flips" not in without.log
    assert len(with_it.losses) == 3
    assert with_it.losses == pytest.approx(without.losses, rel=3e-3)
    ours, theirs = with_it.records[0], without.records[0]
    assert ours["labels"] == theirs["labels"]
    assert ours["terms"][0] == pytest.approx(theirs["terms"][0], rel=1e-3, abs=1e-5)
