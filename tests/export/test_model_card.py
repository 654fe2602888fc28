"""The card beside a file: what the run and the user say is in it, and what nobody says is said."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.small_networks import SmallNetwork
from huggingface_hub import ModelCard

from arcface_cakd.backbones import ModelDescription, TrainingSet, save_model
from arcface_cakd.evaluation import verification_metrics
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.export import ExportError, export_model
from arcface_cakd.export.model_card import UNSAID, RunFacts, check_card, run_facts, write_card

ABOUT = {
    "network": "small",
    "embedding_size": "12",
    "input": "aligned faces",
    "normalisation": "into [-1, 1]",
    "output": "embeddings",
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    return folder, export_model(SmallNetwork(), folder / "small.onnx")


def test_the_card_says_what_run_and_user_say(exported, tmp_path):
    folder, report = exported
    said = ModelDescription("small", 12, TrainingSet("ms1mv3", 5_179_510, 93_431))
    save_model(SmallNetwork(), tmp_path / "model.pt", said)
    lines = [
        {"step": 10, "seconds": 60.0, "images_per_second": 50.0, "margin": 3.0, "terms": {}},
        {"step": 10, "epoch": 0, "validation": {"lfw": 0.9}},
        {
            "step": 20,
            "seconds": 30.0,
            "images_per_second": 100.0,
            "margin": 2.0,
            "terms": {"embedding_cosine": 1.0, "urfm_feature": 0.5},
        },
        {"step": 20, "epoch": 0, "validation": {"lfw": 0.9512}},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    about = {**ABOUT, "license": "MIT", "teacher": "Swin-S on MS1MV3", "data_license": "research"}
    rng = np.random.default_rng(0)
    issame = np.arange(40) % 2 == 0
    result = verification_metrics(rng.normal(size=(80, 12)), issame)
    original = verification_metrics(rng.normal(size=(80, 12)), issame)
    found = vars(result) | {"accuracy_interval": Interval(0.4, 0.625, 0.95, "people")}
    judge = SimpleNamespace(exported={"lfw": type(result)(**found)}, original={"lfw": original})
    path = write_card(report, SmallNetwork(), about, run_facts(tmp_path / "model.pt"), judge)
    assert path == folder / "small.onnx.md"
    card = ModelCard.load(path)
    assert card.data.license == "mit"
    assert card.data.library_name == "onnx"
    assert "small" in card.data.tags
    for text in (
        "- ms1mv3: 5,179,510 images of 93,431 people",
        "- Teacher: Swin-S on MS1MV3",
        "margin, embedding_cosine, urfm_feature",
        f"| lfw | {100 * result.accuracy:.2f} % | {100 * original.accuracy:.2f} % |",
        "people: 40.00 to 62.50",
        "lfw 95.12 %",
        "0.03 hours over 6,000 images",
        "- This file: MIT",
        "- Training data: research",
        f"- Teacher's weights: {UNSAID}",
        f"cosine at least {report.cosine:.6f}, run by onnxruntime on 4 random pictures",
        "`small.onnx`",
    ):
        assert text in card.text, text


def test_a_run_that_keeps_no_log_of_ours_has_its_data_in_the_card(tmp_path):
    """As one in arcface_torch."""
    said = ModelDescription("small", 12, TrainingSet("ms1mv3", 100, 10))
    save_model(SmallNetwork(), tmp_path / "model.pt", said)
    assert run_facts(tmp_path / "model.pt") == RunFacts(data="ms1mv3: 100 images of 10 people")


def test_what_nobody_says_is_said(exported, tmp_path):
    _, report = exported
    card = write_card(report, SmallNetwork(), ABOUT, run_facts(tmp_path / "model.pt"))
    text = card.read_text(encoding="utf-8")
    assert text.count(UNSAID) == 7  # data, teacher, terms, training, three licences
    assert "--data SET.bin` puts them here" in text
    assert "license: other" in text
    assert "None" not in text.replace("None: `arcface", "")


def test_the_card_of_a_plain_model_names_no_teacher(exported, tmp_path):
    _, report = exported
    save_model(
        SmallNetwork(),
        tmp_path / "model.pt",
        ModelDescription("small", 12, TrainingSet("ms1mv3", 100, 10)),
    )
    log = tmp_path / "metrics.jsonl"
    line = {"step": 10, "seconds": 6.0, "images_per_second": 50.0, "margin": 3.0}
    for terms, about, teacher, distilled in (
        ({}, {}, "none: the run had no loss but its margin softmax", False),
        ({}, {"teacher": "Swin-S"}, "Swin-S", True),
        ({"embedding_cosine": 0.5}, {}, UNSAID, True),
    ):
        log.write_text(json.dumps({**line, "terms": terms}) + "\n")
        facts = run_facts(tmp_path / "model.pt")
        card = ModelCard.load(write_card(report, SmallNetwork(), {**ABOUT, **about}, facts))
        assert f"- Teacher: {teacher}\n" in card.text
        assert ("knowledge-distillation" in card.data.tags) == distilled
        assert ("Teacher's weights: no teacher" in card.text) != distilled


def test_a_card_that_was_edited_is_not_replaced(exported, tmp_path):
    folder, report = exported
    facts = run_facts(tmp_path / "model.pt")
    card = write_card(report, SmallNetwork(), ABOUT, facts)
    check_card(report.path)
    assert write_card(report, SmallNetwork(), {**ABOUT, "license": "MIT"}, facts) == card
    check_card(report.path)
    written = card.read_bytes()
    edits = (
        written.replace(b"license: mit", b"license: other"),
        written + b"Trained by us.\n",
        b"".join(written.splitlines(keepends=True)[:-1]),
        b"# notes of somebody\n",
        "Gesichter".encode("utf-16"),
        b"",
    )
    for edited in edits:
        card.write_bytes(edited)
        with pytest.raises(ExportError, match="move that away, or choose another name") as caught:
            check_card(report.path)
        assert str(card) in str(caught.value)
        assert card.read_bytes() == edited
    card.unlink()
    check_card(report.path)
    card.symlink_to(folder / "nowhere")
    with pytest.raises(ExportError, match="move that away"):
        check_card(report.path)
    card.unlink()
