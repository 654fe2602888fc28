"""The method by default, embedding and URFM, but for its teacher, written out."""

from easydict import EasyDict as edict

cakd = edict(
    teacher=edict(),  # each recipe names its own
    urfm=edict(num_centers=49, face_distance="relative"),
    losses=[
        edict(name="embedding_cosine", weight=64.0),
        edict(name="urfm_feature", weight=100.0, schedule=edict(kind="decay")),
        edict(name="urfm_attention", weight=1.0),
    ],
    anchoring=edict(weight=1.0),
    margin_weight=1.0,
    lr_scale=edict(urfm=1.0),
    weight_decay=edict(urfm=5e-4),
)
