"""Random weights that are timed give embeddings as trained ones do, in size."""

import torch

from arcface_cakd.backbones import get_model
from arcface_cakd.bench.faces import images_and_labels, learn_statistics, random_weights


def test_embeddings_of_random_weights_are_of_a_trained_ones_size(tmp_path):
    model = get_model("r10_narrow", num_features=512)
    model.load_state_dict(torch.load(random_weights(tmp_path, "r10_narrow"), weights_only=True))
    with torch.no_grad():
        embeddings = model.eval()(images_and_labels(8)[0])
    # The last layer is a BatchNorm, which has seen these images.
    torch.testing.assert_close(embeddings.var(0).mean(), torch.tensor(1.0), rtol=0.01, atol=0)
    torch.testing.assert_close(embeddings.mean(0), torch.zeros(512), rtol=0, atol=0.05)


def test_statistics_are_the_mean_over_all_batches():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    batches = [torch.randn(4, 3, 5, 5) * scale + scale for scale in (1, 2, 3)]
    learn_statistics(model, batches)
    assert not model.training
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    variances = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches])
    torch.testing.assert_close(model[0].running_mean, means.mean(0))
    torch.testing.assert_close(model[0].running_var, variances.mean(0))
