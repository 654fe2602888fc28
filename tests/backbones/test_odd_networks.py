"""Networks of users' own that change what others look at, or give what they do not promise."""

import pytest
import torch
from torch import nn

from arcface_cakd.backbones import BackboneError, FaceBackbone

IMAGES = torch.rand(2, 3, 112, 112)


class Net(FaceBackbone):
    embedding_size, token_dim, grid, stage_dims = 8, 6, (7, 7), (4, 6)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, 4)
        self.down = nn.Conv2d(4, 6, 4, 4)
        self.fc = nn.Linear(6, 8)

    def body(self, images):
        first = self.stem(images)
        final = self.down(first)
        return final, (first, final)

    def head(self, final):
        return self.fc(final.relu().mean((2, 3)))


class InPlaceHead(Net):
    def head(self, final):
        return self.fc(final.relu_().mean((2, 3)))


class InPlaceBody(Net):
    def body(self, images):
        return super().body(images.mul_(0.5))


class OneTensor(Net):
    def body(self, images):
        return super().body(images)[0]


class Tokens(Net):
    def body(self, images):
        final, maps = super().body(images)
        return final.flatten(2), maps


class OtherWidth(Net):
    token_dim = 5


class OtherStages(Net):
    stage_dims = (4, 5)


class Pair(Net):
    def head(self, final):
        return super().head(final), None


class OtherEmbedding(Net):
    embedding_size = 9


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (InPlaceHead, "'InPlaceHead' changes its final map in place in head.*inplace=False"),
        (InPlaceBody, "'InPlaceBody' changes its images in place in body"),
        (OneTensor, "'OneTensor' returns a Tensor from body"),
        (Tokens, r"'Tokens': body gives .* \[None, 4, 6\] channels"),
        (OtherWidth, "'OtherWidth': its pixel features have 6 channels, and token_dim is 5"),
        (OtherStages, r"'OtherStages': body gives .*stage_dims are \(4, 5\)"),
        (Pair, r"'Pair': head gives no tensor \(B, 8\)"),
        (OtherEmbedding, r"'OtherEmbedding': head gives no tensor \(B, 9\)"),
    ],
)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_a_network_must_not_do_is_one_line(network, message, dtype):
    network = network()
    network.amp_dtype = dtype
    with torch.no_grad(), pytest.raises(BackboneError, match=message) as error:
        network.forward_features(IMAGES.clone(), stages=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("maps", [None, (), [], (None,)])
def test_stages_that_nobody_looks_at_may_be_anything(maps):
    class Bare(Net):
        stage_dims = ()

        def body(self, images):
            return super().body(images)[0], maps

    network = Bare().eval()
    assert network(IMAGES.clone()).shape == (2, 8)
    assert torch.jit.trace(network, IMAGES)(IMAGES).shape == (2, 8)


def test_where_changes_are_not_counted_networks_run():
    network = Net().eval()
    with torch.inference_mode():
        inside = network(IMAGES.clone())
    exported = torch.export.export(network, (IMAGES,), strict=False).module()(IMAGES)
    traced = torch.jit.trace(network, IMAGES)(IMAGES)
    # torch 2.6 breaks the graph where it asks which devices have an autocast.
    whole = torch.__version__ >= "2.7"
    compiled = torch.compile(network, backend="eager", fullgraph=whole)(IMAGES)
    for found in (inside, exported, traced, compiled):
        assert torch.allclose(found, network(IMAGES), atol=1e-5)
