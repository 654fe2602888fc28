import re
import textwrap
import warnings
from dataclasses import replace

import pytest

from arcface_cakd.config import ConfigError, LossEntry, load_config
from arcface_cakd.config.cakd import METHOD_LOSSES
from arcface_cakd.errors import ArcfaceCakdError, ArcfaceCakdWarning
from arcface_cakd.losses import DistillationLoss
from arcface_cakd.registry import LOSSES

METHOD = {loss["name"]: loss["weight"] for loss in METHOD_LOSSES}


@pytest.fixture
def write(tmp_path):
    def write(body, name="run.py"):
        path = tmp_path / name
        text = "from easydict import EasyDict as edict\nconfig = edict()\n" + textwrap.dedent(body)
        path.write_text(text)
        return path

    return write


def test_defaults_are_those_of_arcface_torch(write):
    config = load_config(write("config.rec = 'data'"))
    assert (config.lr, config.batch_size, config.embedding_size) == (0.1, 128, 512)
    assert config.margin_list == (1.0, 0.5, 0.0) and config.seed == 2048
    assert config.output == "work_dirs/run" and config.cakd is None


def test_a_config_of_the_host_is_taken_as_it_is(write):
    body = """
        config.margin_list = (1.0, 0.5, 0.0)
        config.network = "mbf"
        config.resume = False
        config.output = None
        config.embedding_size = 512
        config.sample_rate = 1.0
        config.fp16 = True
        config.momentum = 0.9
        config.weight_decay = 1e-4
        config.batch_size = 128
        config.lr = 0.1
        config.verbose = 2000
        config.dali = False
        config.rec = "/train_tmp/ms1m-retinaface-t1"
        config.num_classes = 93431
        config.num_image = 5179510
        config.num_epoch = 40
        config.warmup_epoch = 0
        config.val_targets = ['lfw', 'cfp_fp', "agedb_30"]
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = load_config(write(body))
    assert config.network == "mbf" and config.num_classes == 93431
    assert config.val_targets == ("lfw", "cfp_fp", "agedb_30")


def test_set_reaches_into_entries(write):
    path = write(
        """
        config.rec = "a"
        config.cakd = edict(teacher=edict(network="swin_s"), losses=[edict(name="urfm_feature")])
        """
    )
    config = load_config(
        path,
        [
            "rec=/elsewhere",
            "lr=0.5",
            "cakd.teacher.weights=random",
            "cakd.losses.0.weight=3",
            "cakd.urfm.dim=128",
            "cakd.prompts.num_tokens=2",
        ],
    )
    assert config.rec == "/elsewhere" and config.lr == 0.5
    assert config.cakd.teacher["weights"] == "random"
    assert config.cakd.losses[0].weight == 3.0
    assert config.cakd.urfm["dim"] == 128 and config.cakd.prompts["num_tokens"] == 2


@pytest.mark.parametrize(
    ("overrides", "weights"),
    [
        (["cakd.losses.0.weight=2"], {**METHOD, "embedding_cosine": 2.0}),
        (["cakd.losses.2.weight=2"], {**METHOD, "urfm_attention": 2.0}),
        (["cakd.urfm=None", "cakd.losses.0.weight=2"], {"embedding_cosine": 2.0}),
    ],
)
def test_set_reaches_into_losses_that_the_entry_does_not_name(write, overrides, weights):
    path = write(f"config.rec = 'a'\nconfig.cakd = edict({TEACHER})")
    losses = load_config(path, overrides).cakd.losses
    assert {loss.name: loss.weight for loss in losses} == weights


def test_set_says_how_many_losses_there_are(write):
    path = write(f"config.rec = 'a'\nconfig.cakd = edict({TEACHER})")
    fails_with("cakd.losses has entries 0 to 2", path, ["cakd.losses.3.weight=2"])


def test_set_reaches_into_a_tuple(write):
    path = write("config.rec = 'a'\nconfig.margin_list = (1.0, 0.5, 0.0)")
    assert load_config(path, ["margin_list.1=0.25"]).margin_list == (1.0, 0.25, 0.0)


def test_pieces_are_shared_by_import_and_never_leak(write, tmp_path):
    write("config.rec = 'a'\nconfig.lr = 0.25", "_piece.py")
    for name, lr in (("one.py", 0.5), ("two.py", 0.25)):
        change = "config.lr = 0.5\n" if lr == 0.5 else ""
        (tmp_path / name).write_text("from _piece import config\n" + change)
        assert load_config(tmp_path / name).lr == lr


REC = "config.rec = 'a'\n"
TEACHER = "teacher=edict(network='swin_s', weights='x')"


def fails_with(message, path, overrides=()):
    with pytest.raises(ArcfaceCakdError) as raised:
        load_config(path, overrides)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "lacks 'rec', which has no default: set config.rec"),
        (REC + "config.CAKD = edict()", "unknown key 'CAKD'; did you mean 'cakd'?"),
        (REC + "config.batchsize = 1", "unknown key 'batchsize'; did you mean 'batch_size'?"),
        (REC + "config.optimizer = 'adam'", "optimizer must be 'sgd' or 'adamw', got 'adam'"),
        (REC + "config.sample_rate = 0", "sample_rate must be above 0 and at most 1, got 0"),
        (REC + "config.fp16 = config.bf16 = True", "fp16 and bf16 are both set"),
        ("1 / 0", "does not run: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "does not run: SystemExit: 3"),
        (REC + "config.batch_size = 1", "run.py: config.batch_size must be at least 2, got 1"),
        (REC + "config.margin_list = (1, 2)", "margin_list must be list of 3 float, got (1, 2)"),
        (REC + "config.val_targets = 'lfw'", "val_targets must be list of str, got 'lfw'"),
        ("config = 3", "defines no `config = edict(...)`"),
        ("config.rec = ''", "config.rec is empty: name a folder"),
        (REC + "config.output = ''", "config.output is empty: name a folder"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(write, body, message):
    fails_with(message, write(body))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr", "--set lr: write key=value"),
        ("lrr=1", "--set lrr=1: unknown key 'lrr'; did you mean 'lr'?"),
        ("lr={[]: 1}", "lr must be float, got '{[]: 1}'"),
        ("seed.x=1", "--set seed.x=1: seed is not an entry"),
        (f"seed={2**70}", "config.seed must be from -2^63 to below 2^64"),
        ("augment={b'crop': 0.2}", "--set augment={b'crop': 0.2}: b'crop' is the name of no"),
        ("cakd.__weakref__=1", "'__weakref__' is the name of no setting"),
        ("cakd={'__weakref__': 1}", "'__weakref__' is the name of no setting"),
        ("cakd={'losses': ({'name': 'rkd', 1: 2},)}", "1 is the name of no setting"),
        ("cakd={'losses': [{'name': 'rkd', 'items': 3}]}", "'items' is the name of no setting"),
        ("margin_list.3=1", "--set margin_list.3=1: margin_list has entries 0 to 2"),
    ],
)
def test_a_mistake_in_set_is_one_line(write, override, message):
    fails_with(message, write(REC + "config.seed = 1\nconfig.margin_list = (1, 0, 0)"), [override])


def test_a_long_name_is_shown_in_part(write):
    with pytest.raises(ConfigError) as raised:
        load_config(write(REC), [f"cakd={{('{'x' * 5000}',): 1}}"])
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("", "cakd lacks 'teacher'"),
        (TEACHER + ", looses=[]", "cakd has no setting 'looses'; did you mean 'losses'?"),
        ("teacher=edict(network='swin_s')", "cakd.teacher lacks 'weights'"),
        (
            TEACHER + ", losses=[edict(name='urfm_featur')]",
            "unknown loss 'urfm_featur'; did you mean 'urfm_feature'?",
        ),
        (
            TEACHER + ", losses=[edict(name='embedding_cosine', weight=-1)]",
            "cakd.losses[0].weight must be at least 0, got -1",
        ),
        (
            TEACHER + ", losses=edict(name='rkd')",
            "cakd.losses must be list of edict(name, weight, schedule), got",
        ),
        (
            TEACHER.replace(")", ", cached_views=2)"),
            "counts views in a cache: set config.cakd.teacher.cache to a folder",
        ),
        (TEACHER + ", losses=['urfm_feature']", "cakd.losses[0] must be an edict with a name"),
        (TEACHER + ", losses=[edict(name=['x'])]", "cakd.losses[0] must be an edict with a name"),
        (TEACHER + ", urfm=edict(dims=3)", "cakd.urfm has no setting 'dims'; did you mean 'dim'?"),
        (TEACHER + ", urfm=None, anchoring=edict()", "but cakd.urfm is None"),
        (TEACHER + ", prompts=None, preservation=edict()", "but cakd.prompts is None"),
        (TEACHER + ", preservation=edict()", "is None: set cakd.prompts=edict(), or drop it"),
        (
            TEACHER + ", lr_scale=edict(prompt=1)",
            "cakd.lr_scale has no setting 'prompt'; did you mean 'prompts'?",
        ),
        (
            TEACHER + ", losses=[edict(name='embedding_cosine', schedule=edict(kind='warm'))]",
            "cakd.losses[0].schedule.kind must be 'constant' or 'warmup' or 'decay'",
        ),
        (
            TEACHER.replace(")", ", cache='')"),
            "cakd.teacher.cache is empty: name a folder, or drop it",
        ),
        (
            TEACHER + ", losses=[edict(name='embedding_cosine', weigth=2)]",
            "cakd.losses[0] has no setting 'weigth'; did you mean 'weight'?",
        ),
        (
            TEACHER + ", losses=[edict(name='rkd', weights=2)]",
            "cakd.losses[0] has no setting 'weights'; did you mean 'weight'?",
        ),
        (TEACHER + ", prompts=edict(dropout=1.0)", "cakd.prompts.dropout must be at least 0 and"),
        (TEACHER + ", clipping='none'", "cakd.clipping must be 'separate' or 'shared'"),
    ],
)
def test_a_mistake_in_the_cakd_entry_is_one_line(write, entry, message):
    fails_with(message, write(REC + f"config.cakd = edict({entry})"))


def test_a_loss_whose_own_setting_an_entry_has_for_itself_is_refused(monkeypatch):
    class Mine(DistillationLoss):
        def __init__(self, dims, *, weight: float = 5.0):
            super().__init__(dims)

    with monkeypatch.context() as patch:
        patch.setitem(LOSSES._components, "mine", Mine)
        with pytest.raises(ConfigError, match=r"loss 'mine' has a setting 'weight'.*rename"):
            LossEntry.from_entry({"name": "mine", "weight": 2.0}, "cakd.losses[0]")


def test_embedding_and_urfm_are_the_default(write):
    cakd = load_config(write(REC + f"config.cakd = edict({TEACHER})")).cakd
    assert [loss.name for loss in cakd.losses] == [
        "embedding_cosine",
        "urfm_feature",
        "urfm_attention",
    ]
    assert [loss.weight for loss in cakd.losses] == [64.0, 100.0, 1.0]
    assert [loss.schedule["kind"] for loss in cakd.losses if loss.schedule] == ["decay"]
    assert cakd.prompts is None and cakd.preservation is None
    assert cakd.urfm["num_centers"] == 49 and cakd.urfm["face_distance"] == "relative"
    assert cakd.urfm["position"] == "query_key" and cakd.anchoring["weight"] == 1.0
    assert (cakd.weight_decay.prompts, cakd.weight_decay.urfm) == (0.0, 5e-4)
    assert cakd.clipping == "separate"


def test_prompts_that_are_asked_for_bring_preservation(write):
    without = load_config(write(REC + f"config.cakd = edict({TEACHER})")).cakd
    cakd = load_config(write(REC + f"config.cakd = edict({TEACHER}, prompts=edict())")).cakd
    assert cakd.prompts["num_tokens"] == 8 and cakd.output_target == "unprompted"
    assert cakd.preservation == {"kind": "embedding", "weight": 64.0}
    assert replace(cakd, prompts=None, preservation=None) == without


def test_without_urfm_only_the_embedding_is_aligned(write):
    cakd = load_config(write(REC + f"config.cakd = edict({TEACHER}, urfm=None)")).cakd
    assert [loss.name for loss in cakd.losses] == ["embedding_cosine"]
    assert cakd.anchoring is None


# What the entry says, and whether prompts, URFM, anchoring and preservation are on.
PROMPTS, URFM, OFF = (True, False, False, True), (False, True, True, False), (False,) * 4
ON = (True,) * 4


@pytest.mark.parametrize(
    ("entry", "on"),
    [
        ("", URFM),
        ("losses=None", URFM),
        ("prompts=edict()", ON),
        ("prompts=edict(), preservation=None", (True, True, True, False)),
        ("losses=[edict(name='rkd')]", OFF),
        ("losses=[edict(name='fitnet'), edict(name='embedding_cosine')]", OFF),
        ("losses=[edict(name='urfm_feature')]", URFM),
        ("losses=[edict(name='rkd'), edict(name='urfm_attention')]", URFM),
        ("losses=[edict(name='rkd')], prompts=edict()", PROMPTS),
        ("losses=[edict(name='rkd')], urfm=edict()", URFM),
        ("losses=[edict(name='rkd')], urfm=edict(), anchoring=None", (False, True, False, False)),
        ("losses=[edict(name='rkd')], prompts=edict(), preservation=None", (True, *OFF[1:])),
        ("prompts=None", URFM),
        ("urfm=None", OFF),
        ("urfm=None, prompts=edict()", PROMPTS),
        ("losses=[]", OFF),
    ],
)
def test_what_is_on_follows_from_the_losses_or_is_asked_for(write, entry, on):
    cakd = load_config(write(REC + f"config.cakd = edict({TEACHER}, {entry})")).cakd
    sections = (cakd.prompts, cakd.urfm, cakd.anchoring, cakd.preservation)
    assert tuple(section is not None for section in sections) == on


def test_a_key_that_resembles_nothing_is_ignored_aloud(write):
    with pytest.warns(ArcfaceCakdWarning, match="'zzzz' is ignored"):
        load_config(write("config.rec = 'a'\nconfig.zzzz = 1"))


COSFACE, ARCFACE = (1.0, 0.0, 0.4), (1.0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("body", "margins", "said"),
    [
        ("config.loss = 'cosface'", COSFACE, r"loss 'cosface' is taken up as margin_list \(1.0, 0"),
        ("config.loss = 'ArcFace'", ARCFACE, "loss 'ArcFace' is taken up"),
        ("config.loss = 'cosface'; config.margin_list = (1, 0, 0.4)", COSFACE, None),
        ("config.loss = 'cosface'; config.margin_list = (1, .5, 0)", ARCFACE, "'cosface' is ign"),
        ("config.loss = 'softmax'", ARCFACE, "loss 'softmax' is ignored: margin_list says"),
        ("config.loss = None", ARCFACE, None),
    ],
)
def test_a_loss_of_older_configs_is_taken_up_or_said(write, recwarn, body, margins, said):
    config = load_config(write(f"config.rec = 'x'; {body}"))
    assert config.margin_list == margins
    lines = [str(warning.message) for warning in recwarn.list]
    assert len(lines) == (said is not None)
    assert all(re.search(said, line) and "\n" not in line for line in lines)


def test_images_that_the_host_makes_up_are_not_ours(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = 'config = edict(rec="synthetic", network="r10_narrow")'
    with pytest.raises(ConfigError, match="'arcface-cakd data synthesize' makes faces"):
        load_config(write(body))
    (tmp_path / "synthetic").mkdir()
    assert load_config(write(body)).rec == "synthetic"


def test_a_record_file_stands_for_its_folder(write):
    for given, folder in (("a/train.rec", "a"), ("a/b", "a/b"), ("train.rec", ".")):
        path = write(f"config.rec = {given!r}")
        assert load_config(path).rec == folder
        assert load_config(path, [f"rec=z/{given}"]).rec == f"z/{folder}".removesuffix("/.")


def test_a_missing_file_is_said():
    with pytest.raises(ConfigError, match=r"nowhere\.py: no such file"):
        load_config("nowhere.py")
