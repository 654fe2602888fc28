"""What the host reads training images with, and record sets for it, for tests."""

import io
import random
from functools import partial

import numpy as np
import torch
from helpers.record_sets import encoded, jpeg, write_records
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

COUNT = 40


def host_transform():
    return transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]),
        ]
    )


class MXFaceDataset(Dataset):
    """Stands for the host's: its attributes, and items computed from known images and labels."""

    def __init__(self, root_dir, images, keys):
        self.root_dir = root_dir
        self.images = images  # key -> (first label, encoded image)
        self.imgidx = np.array(keys)
        self.transform = host_transform()

    def __len__(self):
        return len(self.imgidx)

    def __getitem__(self, index):
        label, image = self.images[self.imgidx[index]]
        pixels = np.array(Image.open(io.BytesIO(image)).convert("RGB"))
        return self.transform(pixels), torch.tensor(int(label), dtype=torch.long)


class DataLoaderX(DataLoader):
    """Has the one argument that the host's has beside torch's."""

    def __init__(self, local_rank, **kwargs):
        super().__init__(**kwargs)
        self.local_rank = local_rank


def seed_worker(worker, seed):
    random.seed(seed + worker)
    np.random.seed(seed + worker)
    torch.manual_seed(seed + worker)


def loader_over(dataset, workers=0, **more):
    return DataLoaderX(
        local_rank=0,
        dataset=dataset,
        batch_size=6,
        sampler=RandomSampler(dataset, generator=torch.Generator().manual_seed(3)),
        num_workers=workers,
        drop_last=True,
        worker_init_fn=partial(seed_worker, seed=2048),
        **more,
    )


def picture(key):
    """Every seventh is no colour JPEG."""
    if key % 7:
        return jpeg(key)
    grey = Image.open(io.BytesIO(jpeg(key))).convert("L")
    return encoded(grey) if key % 2 else encoded(grey.convert("RGBA"), "PNG")


def insightface_set(folder, label):
    """Record 0 tells how many images there are, and stands last; identity headers follow them."""
    images = {key: (key * 7 % 5, picture(key)) for key in range(1, COUNT + 1)}
    records = {key: (label(number), image) for key, (number, image) in images.items()}
    records[COUNT + 1] = ([1, COUNT + 1], b"")
    records[0] = ([COUNT + 1, COUNT + 2], b"")
    write_records(folder, records)
    return MXFaceDataset(str(folder), images, range(1, COUNT + 1))


def im2rec_set(folder):
    """Flag 0 everywhere: every key is an image, in whatever order the index has them."""
    keys = np.random.default_rng(0).permutation(COUNT).tolist()
    images = {key: (key % 5, picture(key)) for key in keys}
    write_records(folder, images)
    return MXFaceDataset(str(folder), images, keys)


SETS = {
    "scalar": partial(insightface_set, label=float),
    "array": partial(insightface_set, label=lambda number: [number, 77.0, 88.0]),
    "fraction": partial(insightface_set, label=lambda number: [number + 0.75, 1.0]),
    "flag 0": im2rec_set,
}
