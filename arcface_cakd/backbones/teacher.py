"""The frozen network that a student learns from."""

from typing import Annotated

import torch

from arcface_cakd.backbones.base import BackboneError, FaceBackbone
from arcface_cakd.backbones.factory import TIMM, get_model
from arcface_cakd.backbones.onnx_model import OnnxError
from arcface_cakd.backbones.onnx_pixels import Pixels
from arcface_cakd.backbones.onnx_teacher import ONNX, OnnxTeacher
from arcface_cakd.backbones.weights import (
    WeightsError,
    check_network,
    copy_weights,
    embedding_size_of,
    read_description,
    read_weights,
)
from arcface_cakd.backbones.weights.resampling import TRUNK
from arcface_cakd.config.settings import Range
from arcface_cakd.registry import SECTIONS

RANDOM = "random"


# Outputs of timm's classifiers, of ImageNet-1k and its larger forms. Where the last layer of timm's
# model is the embedding's, as in EdgeFace, they would pass for a face's.
_CLASSIFIERS = {1000, 11221, 11821, 21841, 21843}


@SECTIONS.register("teacher")
def build_teacher(
    embedding_size: int,
    *,
    network: str,
    weights: str | None = None,
    stage: Annotated[int, Range(0)] | None = None,
    centers: str | None = None,
    min_accuracy: Annotated[float, Range(0.0, 1.0)] | None = None,
    cache: str | None = None,
    cached_views: Annotated[int, Range(1)] | None = None,
    bf16: bool = False,
    pixels: Pixels | None = None,
) -> FaceBackbone:
    """Build a teacher: in eval mode, no parameter of which requires a gradient.

    The global random state is left as it was, so that a student starts from the same weights
    with a teacher and without.

    Args:
        embedding_size: width E of the embedding where the weights do not tell it.
        network: a name in ``BACKBONES``, ``timm:<model>``, or ``onnx:<file>``: an ONNX file of a
            face recognition model, which gives embeddings only.
        weights: none for an ONNX file, which brings its own; for other networks the teacher's
            ``model.pt``, or what ``read_weights`` reads else. Its embedding may be of another
            width than ``embedding_size``: the teacher is built with the width of its weights.
            Weights of a trunk alone, such as those for ImageNet in timm's or Microsoft's layout,
            have no face head and are refused: they start the training of a teacher. Only the
            word ``random`` gives an untrained teacher.
        stage: whose map the teacher's pixel features are, counted from 0; None: what the network
            gives by itself, the final map of most. See ``FaceBackbone.take_tokens_from``.
        centers: class-centre file(s) of the teacher's margin softmax (a path or a pattern), for
            losses that compare with them; ``"from_data"`` for normalised means of its embeddings
            of each class of the training set, computed before the first step. They are no part of
            the network.
        min_accuracy: share of the first validation set's pairs, in [0, 1], that the teacher must
            tell right: a worse one stops the run before its first step. None: any will do.
        cache: a folder for what the teacher says of each image of the training set, which is
            computed once and read in each step. None: it is computed in each step.
        cached_views: with ``cache`` and augmentation, how many views of each image there are.
        bf16: whether its body runs in bfloat16 whatever the student does, see ``Distiller``: in a
            run in float32 to be faster, in one in float16 because it overflows there.
        pixels: of an ONNX file: "raw" where it normalises its input itself and takes 0..255,
            "normalised" where it takes [-1, 1]. None: told by the names of its nodes.

    Raises:
        UnknownNameError: no such network.
        OnnxError: the ONNX file cannot be used.
        WeightsError: the weights cannot be read, are another network's by the ``model.json``
            beside them, or do not fit the network; the message says which keys.
        BackboneError: the network has no such stage, or no choice of precision.
    """
    if network.startswith(ONNX):
        if weights is not None:
            raise WeightsError(
                f"cakd.teacher, network {network!r}: an ONNX file brings its weights; drop "
                f"cakd.teacher.weights {weights!r}"
            )
        if bf16:
            raise BackboneError(
                f"cakd.teacher.bf16: {network!r} runs in the precision of its file: drop the "
                "setting, or take a teacher of which there are weights"
            )
        if stage is not None:
            raise BackboneError(
                f"cakd.teacher.stage {stage}: {network!r} gives embeddings only, and no stage is "
                "within reach: drop the setting, or take a teacher of which there are weights"
            )
        try:
            return OnnxTeacher(network.removeprefix(ONNX), pixels).requires_grad_(False).eval()
        except OnnxError as error:
            raise OnnxError(f"cakd.teacher, network {network!r}: {error}") from error
    if pixels is not None:
        raise WeightsError(
            f"cakd.teacher.pixels {pixels!r} is for ONNX files: drop it, network {network!r} "
            "takes [-1, 1]"
        )
    if weights is None:
        raise WeightsError(
            f"cakd.teacher lacks 'weights': give network {network!r} the model.pt of a finished "
            f"run, or {RANDOM!r} for a teacher that knows nothing"
        )
    if weights.startswith(TIMM):
        raise WeightsError(
            f"cakd.teacher.weights {weights!r}: timm's weights have no face head: train a face "
            f"model from them first (init_weights={weights!r}), and give its model.pt"
        )
    with torch.random.fork_rng(devices=[]):
        if weights == RANDOM:
            teacher = get_model(network, num_features=embedding_size)
        else:
            try:
                check_network(weights, network)
                state = read_weights(weights)
                width = embedding_size_of(state, lambda e: get_model(network, num_features=e))
                teacher = get_model(network, num_features=width or embedding_size)
                timms_alone = all(key.startswith(TRUNK) for key in teacher.state_dict())
                if timms_alone and width in _CLASSIFIERS and read_description(weights) is None:
                    raise WeightsError(
                        f"weights {weights} have {width} outputs, as classifiers of ImageNet have, "
                        "and no face head: take those of a face model, or train one from them "
                        "first (init_weights)"
                    )
                copy_weights(teacher, state, f"weights {weights}")
            except WeightsError as error:
                raise WeightsError(f"cakd.teacher, network {network!r}: {error}") from error
    if stage is not None:
        try:
            teacher.take_tokens_from(stage)
        except BackboneError as error:
            raise BackboneError(f"cakd.teacher.stage of {network!r}: {error}") from None
    if bf16:
        teacher.amp_dtype = torch.bfloat16
    return teacher.requires_grad_(False).eval()
