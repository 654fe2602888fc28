"""``cakd.margin_weight=0``: no class centres, and no labels where nothing needs them."""

import copy
import dataclasses
import gc
import logging

import numpy as np
import pytest
import torch
from helpers.engine_runs import (
    TinyFace,
    assert_same_state,
    made_face,
    make_faces,
    png,
    small_cakd,
    small_config,
)
from helpers.processes import as_torchrun, run_ranks

from arcface_cakd.backbones import get_model
from arcface_cakd.config import CakdConfig, ConfigError
from arcface_cakd.engine import CheckpointError, checkpoint_path, load_distiller, train
from arcface_cakd.engine.builders import build_run
from arcface_cakd.engine.stepping import Stepper
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.partial_fc import PartialFC, PartialFCError, load_centers
from arcface_cakd.recordio import IRHeader, MXIndexedRecordIO, pack, unpack

CPU = torch.device("cpu")
COSINE = [dict(name="embedding_cosine", weight=3.0)]
WIDTH, CLASSES = 24, 37  # of class centres, as no other tensor has them


def label_free(**entry):
    return small_cakd(**{"margin_weight": 0.0, "losses": COSINE, **entry})


def embedding_only(**entry):
    return label_free(prompts=None, urfm=None, **entry)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """14 images in four folders of three depths, and what is none of them; and lfw.bin."""
    folder = tmp_path_factory.mktemp("unlabelled") / "photos"
    made = make_faces(tmp_path_factory.mktemp("bins") / "made", identities=1, images=1)
    places = ["", "b", "a/deep/deeper", "a"]
    for number in range(14):
        place = folder / places[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(png(made_face(number, 0)))
    (folder / "notes.txt").write_text("no image")
    (folder / "a" / ".hidden.png").write_bytes(b"no image")
    (folder / "lfw.bin").write_bytes((made / "lfw.bin").read_bytes())
    return folder


def tensors_of_centres():
    """All tensors alive with a row for each class or as many columns."""
    gc.collect()
    # Not isinstance, which asks lazy modules for their class.
    tensors = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    return [tensor.shape for tensor in tensors if CLASSES in tensor.shape]


def test_no_tensor_of_class_centres_exists(tmp_path, monkeypatch):
    faces = make_faces(tmp_path / "faces", identities=CLASSES, images=1)
    settings = dict(embedding_size=WIDTH, save_all_states=True, sample_rate=0.5)
    teacher = small_config(faces, tmp_path / "with", cakd=small_cakd(losses=COSINE), **settings)
    run = build_run(teacher, CPU)
    assert tensors_of_centres() == [(CLASSES, WIDTH)]  # so they would be found
    del run

    def refuse(self, *args, **kwargs):
        raise AssertionError("a Partial FC was built")

    monkeypatch.setattr(PartialFC, "__init__", refuse)
    found = []
    step = torch.optim.SGD.step
    looking = lambda self: (found.extend(tensors_of_centres()), step(self))  # noqa: E731
    monkeypatch.setattr(torch.optim.SGD, "step", looking)
    config = dataclasses.replace(teacher, output=str(tmp_path / "out"), cakd=label_free())
    result = train(config, stop_after_step=3)
    assert found == [] and result.global_step == 3
    content = torch.load(checkpoint_path(config.output), weights_only=True)
    assert content["state_dict_softmax_fc"] == {} and content["sampling"] is None
    groups = [group["name"] for group in build_run(config, CPU).optimizer.param_groups]
    assert groups == ["student", "prompts", "urfm"]
    with pytest.raises(PartialFCError, match="no state_dict_softmax_fc with a weight"):
        load_centers(str(checkpoint_path(config.output)))


@pytest.mark.parametrize("seed", [3, 8])
def test_one_step_is_that_of_the_distillation_loss_alone(faces, tmp_path, seed):
    """Against numpy's cosine and SGD by hand, from the same weights."""
    settings = dict(momentum=0.0, weight_decay=0.0, clip_grad_norm=None, seed=seed, lr=0.05)
    config = small_config(
        faces, tmp_path, cakd=embedding_only(), save_all_states=True, frequent=1, **settings
    )
    run = build_run(config, CPU)
    student = TinyFace(16, dropout=0.0)
    student.load_state_dict(copy.deepcopy(run.student.state_dict()))
    student.double().train()
    images = next(iter(run.loader))[0]
    target = run.model.teacher(images).double().numpy()
    embeddings = student(images.double())
    z = embeddings.detach().numpy()
    lengths = np.linalg.norm(z, axis=1, keepdims=True)
    unit, wanted = z / lengths, target / np.linalg.norm(target, axis=1, keepdims=True)
    cosines = (unit * wanted).sum(1, keepdims=True)
    loss = 3.0 * (1 - cosines).mean()
    gradient = -3.0 / len(z) * (wanted - cosines * unit) / lengths
    embeddings.backward(torch.from_numpy(gradient))

    line = train(config, stop_after_step=1).history[0]
    assert line["loss"] == pytest.approx(loss, rel=1e-5)
    assert line["terms"] == {"embedding_cosine": line["loss"]} and "margin" not in line
    state = torch.load(checkpoint_path(tmp_path), weights_only=True)["state_dict_backbone"]
    for name, parameter in student.named_parameters():
        moved = (state[f"student.{name}"] - run.student.state_dict()[name]).double()
        torch.testing.assert_close(moved, -0.05 * parameter.grad, rtol=1e-3, atol=1e-6)


def test_a_student_starts_where_one_with_centres_starts(faces, tmp_path):
    runs = [
        build_run(small_config(faces, tmp_path, cakd=small_cakd(margin_weight=w)), CPU)
        for w in (1.0, 0.0)
    ]
    assert_same_state(*(dict(run.model.state_dict()) for run in runs))


def test_images_without_labels_train_and_evaluate(unlabelled, tmp_path, caplog):
    config = small_config(
        unlabelled,
        tmp_path / "out",
        cakd=label_free(),
        val_targets=("lfw",),
        frequent=1,
        num_epoch=1,
    )
    with caplog.at_level(logging.INFO, "arcface_cakd"):
        result = train(config)
    assert result.global_step == 3 and 0 <= result.metrics["lfw"] <= 1
    said = [record.getMessage() for record in caplog.records]
    (counted,) = [line for line in said if "without labels" in line]
    assert "14 images in 4 folder(s)" in counted
    assert "left out: 1 that are no images (notes.txt)" in counted
    (without,) = [line for line in said if "no Partial FC" in line]
    assert "without effect: margin_list, margin_scale" in without
    lines = [line for line in said if "step 3/3" in line]
    assert len(lines) == 1 and "margin" not in lines[0] and "embedding_cosine" in lines[0]
    (path,) = (tmp_path / "out" / "tensorboard").iterdir()
    assert b"terms/embedding_cosine" in path.read_bytes() and b"margin" not in path.read_bytes()
    student = get_model("test_tiny", num_features=16)
    student.load_state_dict(torch.load(tmp_path / "out" / "model.pt", weights_only=True))


def test_the_batches_of_unlabelled_images_are_those_files(unlabelled, tmp_path):
    run = build_run(small_config(unlabelled, tmp_path, cakd=label_free(), batch_size=14), CPU)
    ((images, labels),) = run.loader
    assert run.num_classes is None and labels.tolist() == [0] * 14
    known = {number: made_face(number, 0).astype(np.float32) / 127.5 - 1 for number in range(14)}
    seen = set()
    for image in images.permute(0, 2, 3, 1).numpy():
        near = [
            number
            for number, face in known.items()
            if min(abs(image - face).max(), abs(image[:, ::-1] - face).max()) < 1e-3
        ]
        seen |= set(near)
        assert len(near) == 1
    assert seen == set(known)


def relabelled(source, folder, label):
    """The record set ``source`` with one label for every image."""
    folder.mkdir()
    reader = MXIndexedRecordIO(str(source / "train.idx"), str(source / "train.rec"), "r")
    writer = MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
    for key in reader.keys:
        header, image = unpack(reader.read_idx(key))
        writer.write_idx(key, pack(IRHeader(0, label, key, 0) if image else header, image))
    writer.close()
    return folder


def test_what_the_labels_say_makes_no_difference(faces, tmp_path):
    folders = [faces, *(relabelled(faces, tmp_path / str(n), n) for n in (0.0, -7.5))]
    losses = []
    for number, folder in enumerate(folders):
        output = tmp_path / f"out_{number}"
        config = small_config(folder, output, cakd=label_free(), frequent=1, num_classes=2)
        losses.append([line["loss"] for line in train(config, stop_after_step=3).history])
    assert len(losses[0]) == 3 and losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("settings", [{}, {"bf16": True}, {"gradient_acc": 4}], ids=str)
def test_resumes_to_the_bit(unlabelled, tmp_path, settings):
    settings = {"save_all_states": True, "frequent": 2, "num_epoch": 2, **settings}
    straight = small_config(unlabelled, tmp_path / "a", cakd=label_free(), **settings)
    stopped = small_config(unlabelled, tmp_path / "b", cakd=label_free(), **settings)
    train(straight)
    train(stopped, stop_after_step=2)
    train(dataclasses.replace(stopped, resume=True))
    contents = [
        torch.load(checkpoint_path(c.output), weights_only=True) for c in (straight, stopped)
    ]
    assert contents[0]["global_step"] == 6
    assert_same_state(*contents)
    assert load_distiller(stopped).urfm is not None


def step_of_a_rank(config):
    run = build_run(config, CPU)
    state = copy.deepcopy(run.student.state_dict())
    batch = next(iter(run.loader))
    stepper = Stepper(run.optimizer, clip_grad_norm=None)
    stepper.backward(sum(run.terms(*batch).values()))
    stepper.prepare()
    gradients = {name: p.grad for name, p in run.student.named_parameters()}
    return state, batch[0], gradients


def test_two_ranks_equal_one_process_that_takes_their_shares_in_turn(unlabelled, tmp_path):
    losses = [*COSINE, dict(name="sp", weight=50.0)]  # of a rank's own images, and of all
    config = small_config(unlabelled, tmp_path, cakd=embedding_only(losses=losses), batch_size=7)
    results = run_ranks(step_of_a_rank, 2, tmp_path, config)
    teacher = build_run(config, CPU).model.teacher
    student = TinyFace(16, dropout=0.0)
    student.load_state_dict(results[0][0])
    student.double().train()
    images = [images for _, images, _ in results]
    ours = torch.cat([student(each.double()) for each in images])  # BatchNorm sees a share
    theirs = torch.cat([teacher(each) for each in images]).detach().double()
    cosine = (1 - torch.cosine_similarity(ours, theirs)).mean()
    similar = [torch.nn.functional.normalize(side @ side.T, dim=1) for side in (ours, theirs)]
    preserved = (similar[0] - similar[1]).square().sum() / 14**2
    (3.0 * cosine + 50.0 * preserved).backward()
    largest = max(float(p.grad.abs().max()) for p in student.parameters())
    for _, _, gradients in results:
        for name, parameter in student.named_parameters():
            difference = (gradients[name].double() - parameter.grad).abs().max()
            assert difference <= 1e-4 * parameter.grad.abs().max() + 1e-5 * largest, name


def straight_and_resumed(straight, resumed):
    as_torchrun()
    train(straight)
    train(resumed, stop_after_step=1)
    train(dataclasses.replace(resumed, resume=True))


def test_two_ranks_resume_to_the_bit(unlabelled, tmp_path):
    settings = dict(cakd=label_free(), batch_size=3, num_epoch=1, save_all_states=True)
    configs = [small_config(unlabelled, tmp_path / name, **settings) for name in "ab"]
    run_ranks(straight_and_resumed, 2, tmp_path, *configs)
    for number in (0, 1):
        paths = [checkpoint_path(config.output, number) for config in configs]
        assert_same_state(*(torch.load(path, weights_only=True) for path in paths))


@pytest.mark.parametrize("then, now", [(1.0, 0.0), (0.0, 1.0)])
def test_a_resumed_run_agrees_whether_there_are_class_centres(faces, tmp_path, then, now):
    config = small_config(
        faces, tmp_path, cakd=embedding_only(margin_weight=then), save_all_states=True
    )
    train(config, stop_after_step=1)
    changed = dataclasses.replace(config, resume=True, cakd=embedding_only(margin_weight=now))
    with pytest.raises(CheckpointError, match=r"class centres.*cakd\.margin_weight") as error:
        train(changed)
    assert "\n" not in str(error.value) and str(checkpoint_path(tmp_path)) in str(error.value)
    train(dataclasses.replace(config, resume=True), stop_after_step=2)  # as it advises


@pytest.mark.parametrize(
    "entry, said",
    [
        (dict(losses=[]), "the student would learn nothing"),
        (dict(losses=[dict(name="rkd", weight=0.0)]), "the student would learn nothing"),
        (dict(losses=[*COSINE, dict(name="kd")]), "loss 'kd'.*no.*class centres|loss 'kd'.*none"),
        (dict(losses=[dict(name="ofa_kd")]), "loss 'ofa_kd'"),
    ],
)
def test_what_leaves_nothing_to_learn_from_is_refused(entry, said):
    with pytest.raises(ConfigError, match=said) as error:
        label_free(**entry)
    assert "\n" not in str(error.value)
    assert isinstance(label_free(**entry | {"margin_weight": 0.1}), CakdConfig)


def test_what_needs_labels_does_without_class_centres_but_not_without_labels(
    faces, unlabelled, tmp_path
):
    cakd = embedding_only(losses=[dict(name="adadistill")])
    assert cakd.needs_labels and not label_free().needs_labels
    assert label_free(preservation=dict(kind="margin")).needs_labels
    run = build_run(small_config(faces, tmp_path, cakd=cakd), CPU)
    assert run.partial_fc is None and run.num_classes == 6
    (term,) = run.terms(*next(iter(run.loader))).values()
    assert term.isfinite()
    one = make_faces(tmp_path / "one", identities=1, images=8)
    for folder, said in ((unlabelled / "b", "one folder per identity"), (one, "one identity")):
        with pytest.raises(ArcfaceCakdError, match=said) as error:
            build_run(small_config(folder, tmp_path, cakd=cakd), CPU)
        assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_a_loss_that_does_not_say_that_it_needs_labels_gets_none(faces, tmp_path):
    seen = []

    def forward(student, teacher, batch):
        seen.append((batch.labels, batch.partial_fc))
        return student.embedding.mean()

    run = build_run(small_config(faces, tmp_path, cakd=embedding_only()), CPU)
    run.model.losses["embedding_cosine"].forward = forward
    run.terms(*next(iter(run.loader)))
    assert seen == [(None, None)]


def test_folders_are_read_whole_and_once(unlabelled, tmp_path):
    for name, target in (("again", unlabelled / "a"), ("back", unlabelled), ("photos", unlabelled)):
        (tmp_path / name).symlink_to(target)
    run = build_run(small_config(tmp_path, tmp_path / ".out", cakd=label_free()), CPU)
    assert run.loader.num_images == 14
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(ArcfaceCakdError, match=r"gone\.jpg: a link that leads nowhere") as error:
        build_run(small_config(tmp_path, tmp_path / ".out", cakd=label_free()), CPU)
    assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArcfaceCakdError, match="nor an image in any folder"):
        build_run(small_config(tmp_path / "empty", tmp_path / ".out", cakd=label_free()), CPU)
