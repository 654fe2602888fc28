"""Weights of timm's for another image, patch or window size; and as a start for training."""

import logging
import re

import pytest
import timm
import torch
from helpers.engine_runs import small_cakd, small_config
from timm.models.swin_transformer import SwinTransformer

from arcface_cakd.backbones import WeightsError, build_teacher, get_model, start_from
from arcface_cakd.config import ConfigError, load_config
from arcface_cakd.engine.builders import build_model

VIT = "timm:test_vit"  # two blocks of width 64, patches of 16


def swin(image=56, patch=2, window=7, classes=0, seed=3):
    """A trunk of swin_mini's depth and widths; at 56 pixels with patches of 2 also of its grids."""
    torch.manual_seed(seed)
    trunk = SwinTransformer(
        img_size=image,
        patch_size=patch,
        window_size=window,
        num_classes=classes,
        embed_dim=32,
        depths=(2, 2, 2),
        num_heads=(1, 2, 4),
    )
    return trunk.eval()


def saved(state, path):
    torch.save(state, path)
    return str(path)


def start(state, path, network="swin_mini"):
    torch.manual_seed(5)
    fresh = get_model(network, num_features=16)
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    start_from(fresh, saved(state, path))
    for key, value in fresh.state_dict().items():
        if not key.startswith("trunk."):
            assert torch.equal(value, before[key]), key  # the face head is not of timm
    return fresh.eval()


def test_patches_of_twice_the_size_see_the_same_in_twice_the_image(tmp_path, caplog):
    small = swin(classes=10)
    with caplog.at_level(logging.INFO, "arcface_cakd"):
        large = start(small.state_dict(), tmp_path / "w.pt")
    assert caplog.messages == [
        f"weights {tmp_path / 'w.pt'}: 1 keys of the trunk renamed or resampled"
    ]
    assert large.trunk.patch_embed.proj.weight.shape[-1] == 4
    patches = torch.rand(2, 3, 28, 28) * 2 - 1  # of one colour each: any resampling keeps it
    with torch.no_grad():
        expected = small.forward_features(patches.repeat_interleave(2, 2).repeat_interleave(2, 3))
        images = patches.repeat_interleave(4, 2).repeat_interleave(4, 3)
        tokens = large.forward_features(images).tokens
    torch.testing.assert_close(tokens, expected.flatten(1, 2), rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple sequence")
def test_tables_of_relative_positions_follow_the_window(tmp_path):
    small = swin(image=64, patch=4, window=4)
    tables = [k for k in small.state_dict() if k.endswith("relative_position_bias_table")]
    state = small.state_dict()
    for key in tables:  # by the row distance alone, -3 to 3
        rows = torch.arange(-3.0, 4.0).repeat_interleave(7)
        state[key] = rows[:, None].repeat(1, state[key].shape[1])
    trunk = start(state, tmp_path / "w.pt").trunk
    for key, value in trunk.state_dict().items():
        if key not in tables:
            assert torch.equal(value, state[key]), key
            continue
        table = value.reshape(13, 13, -1)  # windows of 7
        torch.testing.assert_close(table, -table.flip(0), atol=1e-4, rtol=0)
        torch.testing.assert_close(table, table[:, :1].expand_as(table), atol=1e-4, rtol=0)
        # Rising near the centre; timm keeps the edge's value for what the small window never saw.
        assert (table.diff(dim=0) > -1e-4).all() and (table[5:8].diff(dim=0) > 0.1).all()
        assert table.max() == pytest.approx(3, abs=1e-4)


def test_a_swin_in_microsofts_layout(tmp_path):
    whole = swin(image=112, patch=4, classes=10).state_dict()
    renamed = {
        re.sub(r"layers\.(\d)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", key).replace(
            "head.fc", "head"
        ): value
        for key, value in whole.items()
    }
    renamed["layers.0.blocks.1.attn_mask"] = torch.zeros(16, 49, 49)
    renamed["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49).long()
    assert "layers.0.downsample.reduction.weight" in renamed
    trunk = start({"model": renamed, "epoch": 3}, tmp_path / "w.pth").trunk
    for key, value in trunk.state_dict().items():
        assert torch.equal(value, whole[key]), key


def test_position_embeddings_of_a_vit_follow_the_grid(tmp_path):
    torch.manual_seed(1)
    small = timm.create_model("test_vit", img_size=64, num_classes=10)
    state = small.state_dict()
    places = state["pos_embed"].shape[1] - 16
    channels = torch.randn(1, 1, state["pos_embed"].shape[2])
    state["pos_embed"][:, places:] = channels  # the same everywhere
    trunk = start(state, tmp_path / "w.pt", VIT).trunk
    resized = trunk.state_dict()["pos_embed"]
    assert resized.shape[1] == places + 49
    assert torch.equal(resized[:, :places], state["pos_embed"][:, :places])
    expected = channels.expand(1, 49, -1)
    torch.testing.assert_close(resized[:, places:], expected, atol=1e-4, rtol=1e-4)
    for key, value in trunk.state_dict().items():
        assert key == "pos_embed" or torch.equal(value, state[key]), key


def test_a_teacher_of_other_patches_is_resampled_and_one_of_another_grid_refused(tmp_path):
    teacher = get_model("swin_mini", num_features=16)
    state = teacher.state_dict()
    state.update({f"trunk.{k}": v for k, v in swin().state_dict().items()})
    built = build_teacher(512, network="swin_mini", weights=saved(state, tmp_path / "model.pt"))
    assert built.embedding_size == 16 and not built.training
    wanted = swin().state_dict()["layers.1.blocks.0.mlp.fc1.weight"]
    assert torch.equal(built.trunk.layers[1].blocks[0].mlp.fc1.weight, wanted)

    head = next(k for k, v in state.items() if k.startswith("feature.") and v.dim() == 2)
    state[head] = state[head][:, :-5]
    with pytest.raises(WeightsError, match=rf"1 of another shape \({re.escape(head)}"):
        build_teacher(16, network="swin_mini", weights=saved(state, tmp_path / "model.pt"))


def test_what_does_not_fit_is_reported_without_what_would_be_resampled(tmp_path):
    wide = swin().state_dict()
    wide["layers.0.blocks.0.mlp.fc1.weight"] = torch.zeros(3, 3)
    del wide["norm.bias"]
    with pytest.raises(WeightsError) as error:
        start(wide, tmp_path / "w.pt")
    line = str(error.value)
    assert "1 missing (trunk.norm.bias)" in line and "\n" not in line
    key = "trunk.layers.0.blocks.0.mlp.fc1.weight"
    assert f"1 of another shape ({key} (3, 3) instead of (128, 32))" in line


def test_a_whole_face_model_starts_another(tmp_path):
    for name in ("swin_mini", "r10_narrow"):
        other = get_model(name, num_features=16)
        fresh = get_model(name, num_features=16)
        start_from(fresh, saved(other.state_dict(), tmp_path / "model.pt"))
        for key, value in fresh.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


class TestTimm:
    def test_weights_that_timm_downloads(self, monkeypatch):
        asked = []

        def create_model(name, pretrained):
            asked.append((name, pretrained))
            return swin(classes=10)

        monkeypatch.setattr(timm, "create_model", create_model)
        fresh = get_model("swin_mini", num_features=16)
        torch.manual_seed(8)
        before = torch.get_rng_state()
        start_from(fresh, "timm:swin_small_patch4_window7_224")
        assert torch.equal(torch.get_rng_state(), before)
        assert asked == [("swin_small_patch4_window7_224", True)]
        assert torch.equal(fresh.trunk.norm.weight, swin().norm.weight)
        wanted = swin(classes=10).layers[0].blocks[0].attn.qkv.weight
        assert torch.equal(fresh.trunk.layers[0].blocks[0].attn.qkv.weight, wanted)

    @pytest.mark.parametrize("name", ["no_such_model", "test_vit.no_such_tag"])
    def test_that_cannot_be_had(self, name):
        with pytest.raises(WeightsError, match=f"weights timm:{name} cannot be had") as error:
            start_from(get_model("swin_mini"), f"timm:{name}")
        assert "\n" not in str(error.value)


class TestConfig:
    def test_a_plain_model_starts_from_it_and_a_resumed_one_does_not(self, tmp_path):
        source = saved(swin().state_dict(), tmp_path / "w.pt")
        config = small_config(tmp_path, tmp_path, network="swin_mini", init_weights=source)
        plain = build_model(small_config(tmp_path, tmp_path, network="swin_mini"), 6)
        started = build_model(config, 6)
        qkv = "trunk.layers.0.blocks.0.attn.qkv.weight"
        assert torch.equal(started.state_dict()[qkv], swin().state_dict()[qkv[6:]])
        for key, value in plain.state_dict().items():
            if not key.startswith("trunk."):
                assert torch.equal(value, started.state_dict()[key]), key
        config.resume, config.init_weights = True, str(tmp_path / "gone.pt")
        assert torch.equal(build_model(config, 6).state_dict()[qkv], plain.state_dict()[qkv])

    def test_distillation_has_another_key_for_it(self, tmp_path):
        path = tmp_path / "run.py"
        path.write_text(
            "from easydict import EasyDict as edict\n"
            "config = edict(rec='x', init_weights='w.pt')\n"
            "config.cakd = edict(teacher=edict(network='swin_s', weights='random'))\n"
        )
        with pytest.raises(ConfigError, match=r"set cakd\.student_weights"):
            load_config(path)
        assert small_cakd().student_weights is None
