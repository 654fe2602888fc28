"""ImageNet weights start a trunk: timm's of many families, and Microsoft's of its Swins."""

import json
import logging
import re
import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from arcface_cakd.backbones import WeightsError, build_teacher, get_model, start_from
from arcface_cakd.backbones.timm_grid import TimmGrid
from arcface_cakd.backbones.weights.resampling import TRUNK

GOLDEN = Path(__file__).parents[2] / "golden"
make = runpy.run_path(str(GOLDEN / "make_backbones.py"))
microsoft = runpy.run_path(str(GOLDEN / "make_microsoft_swin.py"))
golden = json.loads((GOLDEN / "microsoft_swin.json").read_text())

THIN = {"depth": 2, "embed_dim": 48, "num_heads": 2}
STAGED = {"embed_dim": 24, "depths": (1, 2, 1, 1)}
# timm's models whose state dicts differ from their trunks' in ways of their own, made small.
FAMILIES = {
    "vit_tiny_patch16_224": THIN,
    "vit_medium_patch16_gap_240": THIN,
    "vit_relpos_small_patch16_224": THIN,
    "flexivit_small": THIN,
    "test_vit3": {},  # pooled by attention
    "deit3_small_patch16_224": THIN,
    "vit_small_patch16_rope_224": THIN,
    "swin_tiny_patch4_window7_224": STAGED,
    "swinv2_tiny_window8_256": {**STAGED, "img_size": 112, "window_size": 7},
    "swinv2_cr_tiny_224": {**STAGED, "img_size": 112, "window_size": 7},
    "convnext_atto": {},
    "resnet10t": {},
    "resnetv2_18": {},
    "mobilenetv3_small_050": {},
    "efficientvit_b0": {},
    "davit_tiny": {"embed_dims": (24, 48, 96, 192), "num_heads": (1, 2, 4, 8)},
    "pvt_v2_b0": {},
    "tiny_vit_5m_224": {},
    "poolformer_s12": {},
    "repvit_m0_9": {},
}
GAP = "vit_little_patch16_reg4_gap_256"
# ViTs whose classifier norms the mean of the tokens, and not the tokens.
NORMED_BY_US = {
    "test_vit2": {},
    "test_vit4": {},
    GAP: THIN,
    "beit_base_patch16_224": THIN,
    "eva02_tiny_patch14_224": {"depth": 1},
    "vitamin_small_224": {},
}


def classifier(name, **settings):
    """timm's model as its download would fill it: no weight has its initial value."""
    torch.manual_seed(2)
    model = timm.create_model(name, pretrained=False, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for key, buffer in model.named_buffers():
            if key.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
            elif key.endswith("running_mean"):
                buffer.normal_(std=0.1)
    return model.eval()


def saved(state, path):
    torch.save(state, path)
    return str(path)


def started(name, source, settings):
    torch.manual_seed(5)
    model = get_model(name, num_features=8, **settings)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    start_from(model, str(source))
    for key, value in model.state_dict().items():
        if not key.startswith(TRUNK):
            assert torch.equal(value, before[key]), key  # the face head stays
    return model.eval()


def timms_tokens(name, path, settings, images):
    """What timm's model gives at 112 x 112, with the file read by timm's own loader."""
    try:
        model = timm.create_model(name, **{"img_size": 112, **settings})
    except TypeError:  # convolutional networks take images of any size
        model = timm.create_model(name, **settings)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    timm.models.load_checkpoint(model, path, strict=True, filter_fn=convert)
    with torch.no_grad():
        features = model.eval().forward_features(images)
    if features.dim() == 3:
        return features[:, getattr(model, "num_prefix_tokens", 0) :]
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    return features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)


@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple sequence")
class TestTimm:
    @pytest.mark.parametrize("name", [n for n in FAMILIES if timm.is_model(n)])
    def test_tokens_are_those_of_timms_model(self, name, tmp_path):
        if (name, timm.__version__) == ("tiny_vit_5m_224", "1.0.9"):
            pytest.skip("its maps are not what it pools")
        path = saved(classifier(name, **FAMILIES[name]).state_dict(), tmp_path / "w.pth")
        model = started(f"timm:{name}", path, FAMILIES[name])
        with torch.no_grad():
            tokens = model.forward_features(make["images"](2)).tokens
        expected = timms_tokens(name, path, FAMILIES[name], make["images"](2))
        torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())

    @pytest.mark.parametrize("name", [n for n in NORMED_BY_US if timm.is_model(n)])
    def test_tokens_that_timm_leaves_without_a_norm_get_a_plain_one(self, name, tmp_path, caplog):
        path = saved(classifier(name, **NORMED_BY_US[name]).state_dict(), tmp_path / "w.pth")
        with caplog.at_level(logging.INFO, "arcface_cakd"):
            model = started(f"timm:{name}", path, NORMED_BY_US[name])
        line = f"weights {path}: not in them, and left as it was: norm.weight"
        assert [m.removesuffix(", norm.bias") for m in caplog.messages if "not in" in m] == [line]
        with torch.no_grad():
            tokens = model.forward_features(make["images"](2)).tokens
        plain = timms_tokens(name, path, NORMED_BY_US[name], make["images"](2))
        if name != "test_vit4":  # which has RMSNorm
            plain = plain - plain.mean(-1, keepdim=True)
        expected = plain / plain.square().mean(-1, keepdim=True).sqrt()
        torch.testing.assert_close(tokens, expected, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("form", ["state_dict", "prefix", "safetensors", "name"])
    def test_whatever_it_comes_in(self, form, tmp_path, monkeypatch):
        whole = classifier(GAP, **THIN)
        state = whole.state_dict()
        source = tmp_path / "w.pth"
        if form == "state_dict":
            torch.save({"epoch": 3, "arch": GAP, "state_dict": state}, source)
        elif form == "prefix":
            torch.save({f"model.{k}": v for k, v in state.items()}, source)
        elif form == "safetensors":
            save_file(state, source := tmp_path / "w.safetensors")
        else:
            create = timm.create_model
            monkeypatch.setattr(
                timm,
                "create_model",
                lambda name, pretrained=False, **k: (
                    whole if pretrained else create(name, pretrained=False, **k)
                ),
            )
            source = f"timm:{GAP}"
        trunk = started(f"timm:{GAP}", source, THIN).trunk
        resized = {"pos_embed"}
        for key, value in trunk.state_dict().items():
            if key not in {"norm.weight", "norm.bias"} | resized:
                assert torch.equal(value, state[key]), key

    @pytest.mark.parametrize(
        ("name", "settings", "change", "words"),
        [
            ("convnext_atto", {}, {"head.norm.weight": None}, "1 missing (trunk.head.norm.weight"),
            (GAP, {}, {"blocks.0.norm1.bias": None}, "1 missing (trunk.blocks.0.norm1"),
            (GAP, {}, {"new.bias": (3,)}, "1 unexpected (trunk.new.bias)"),
            ("test_vit", {"depth": 1}, {}, "60 unexpected (trunk.blocks.1.norm1.weight"),
            (
                "test_vit",
                {"depth": 1},
                {"pos_embed": None},
                "1 missing (trunk.pos_embed), 60 unexp",
            ),
            ("mixer_s32_224", {}, {}, "mlp_tokens.fc1.weight (256, 49) instead of (256, 9)"),
            ("test_vit", {}, {"norm.weight": None, "fc_norm.weight": (64,)}, "1 unexpected (trunk"),
        ],
    )
    def test_of_the_trunk_nothing_is_left_out_in_silence(
        self, name, settings, change, words, tmp_path
    ):
        state = classifier(name).state_dict()
        for key, shape in change.items():
            state[key] = None if shape is None else torch.zeros(shape)
        state = {key: value for key, value in state.items() if value is not None}
        with pytest.raises(WeightsError, match=re.escape(words)) as error:
            started(f"timm:{name}", saved(state, tmp_path / "w.pth"), settings)
        assert "\n" not in str(error.value)

    def test_nothing_random_is_left_in_the_trunk(self, tmp_path):
        class More(timm.models.vision_transformer.VisionTransformer):
            def __init__(self, more):
                super().__init__(img_size=112, num_classes=int(not more), **THIN)
                if more:
                    self.more = torch.nn.Linear(2, 2)

        model = TimmGrid("more", More(True), num_features=8, build_classifier=lambda: More(False))
        with pytest.raises(WeightsError, match=r"keys: 1 missing \(trunk\.more\.weight\); "):
            start_from(model, saved(More(False).state_dict(), tmp_path / "w.pth"))

    def test_they_make_no_teacher(self, tmp_path):
        path = saved(classifier("test_vit").state_dict(), tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=r"without a face head.*\(init_weights\)") as error:
            build_teacher(8, network="timm:test_vit", weights=path)
        assert "\n" not in str(error.value)

    def test_nor_do_those_that_timm_would_download(self):
        with pytest.raises(WeightsError, match=r"no face head.*init_weights='timm:test_vit'"):
            build_teacher(8, network="timm:test_vit", weights="timm:test_vit")


class TestMicrosoft:
    NETWORKS = {"v1": "swin_mini", "v2": "timm:swinv2_tiny_window8_256"}
    SETTINGS = {"v1": {}, "v2": microsoft["SHAPE"]}

    def checkpoint(self, version, path, without=()):
        keys = {k: s for k, s in golden[version]["keys"].items() if k not in without}
        shapes = {k: tuple(map(int, s.split())) for k, s in keys.items()}
        state = make["seeded_tensors"]({k: torch.zeros(s) for k, s in shapes.items()})
        return saved({"model": state, "epoch": 299, "max_accuracy": 81.2}, path)

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_tokens_are_those_of_its_own_code(self, version, tmp_path):
        path = self.checkpoint(version, tmp_path / "w.pth")
        model = started(self.NETWORKS[version], path, self.SETTINGS[version])
        with torch.no_grad():
            tokens = model.forward_features(make["images"](2)).tokens
        found = torch.tensor(microsoft["some_tokens"](tokens))
        expected = torch.tensor(golden[version]["tokens"])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_only_what_is_wrong_is_reported(self, version, tmp_path):
        path = self.checkpoint(version, tmp_path / "w.pth", without=["norm.bias"])
        with pytest.raises(WeightsError, match=r"keys: 1 missing \(trunk\.norm\.bias\); "):
            started(self.NETWORKS[version], path, self.SETTINGS[version])

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_they_make_no_teacher(self, version, tmp_path):
        path = self.checkpoint(version, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=r"without a face head.*\(init_weights\)"):
            build_teacher(8, network="swin_mini", weights=path)
