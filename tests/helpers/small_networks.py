"""Networks that are quick to export."""

import torch
from torch import nn


class SmallNetwork(nn.Module):
    """Every place that a BatchNorm has in the students, and a sum, in 30,000 parameters."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, 8, 3, 4, padding=1, bias=False)
            self.stem_norm = nn.BatchNorm2d(8)
            self.prelu = nn.PReLU(8)
            self.before = nn.BatchNorm2d(8)  # between a sum and a padded convolution
            self.convolution = nn.Conv2d(8, 8, 3, 1, padding=1, bias=False)
            self.after = nn.BatchNorm2d(8)
            self.narrow = nn.BatchNorm2d(8)  # between a sum and an unpadded convolution
            self.pool = nn.Conv2d(8, 8, 4, 4)
            self.last = nn.BatchNorm2d(8)
            self.linear = nn.Linear(8 * 7 * 7, 12)
            self.features = nn.BatchNorm1d(12)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    nn.init.uniform_(module.running_mean, -0.5, 0.5)
                    nn.init.uniform_(module.running_var, 0.5, 2.0)
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.uniform_(module.bias, -0.5, 0.5)
        self.eval()

    def forward(self, images):
        x = self.prelu(self.stem_norm(self.stem(images)))
        x = self.after(self.convolution(self.before(x))) + x
        x = self.last(self.pool(self.narrow(x)))
        x = x + x.abs()  # so that `last` has no layer after it but through the sum
        return self.features(self.linear(x.flatten(1)))
