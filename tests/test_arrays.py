"""Data made by code: what goes in comes out, and wrong input is refused."""

import pytest
import torch
from torch import nn

import nbs_utils as nbs


def made(n=30, size=8):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, size, size), generator=generator)
    return images.to(torch.uint8), torch.arange(n) % 2


def test_images_come_out_as_they_went_in():
    train, val = made(30), made(10)
    data = nbs.data.from_arrays(train, val, ["even", "odd"], title="made", batch_size=4)
    x, y = next(data.val.batches(10))
    back = x * data.std.view(3, 1, 1) + data.mean.view(3, 1, 1)
    torch.testing.assert_close((255 * back).round().to(torch.uint8).cpu(), val[0])
    assert y.tolist() == val[1].tolist()
    everything = torch.cat([x for x, _ in data.train.batches(30)])
    assert everything.mean().abs() < 1e-5
    assert everything.std().item() == pytest.approx(1, abs=1e-2)
    assert (data.num_classes, data.image_size, len(data.train)) == (2, 8, 30)


def test_each_epoch_has_an_order_of_its_own_without_augmentation():
    data = nbs.data.from_arrays(made(30), made(10), ["a", "b"], title="made")
    first, second = (next(data.train.batches(30, epoch=e))[0] for e in (0, 1))
    assert not torch.equal(first, second)
    ours, theirs = (x.flatten(1)[:, 0].sort().values for x in (first, second))
    torch.testing.assert_close(ours, theirs)


def test_a_network_can_be_trained_on_it():
    images = torch.zeros(40, 3, 4, 4, dtype=torch.uint8)
    labels = torch.arange(40) % 2
    images[labels == 1] = 200
    data = nbs.data.from_arrays(
        (images, labels), (images, labels), ["dark", "bright"], title="made"
    )
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    run = nbs.fit(network, data, "short", epochs=2, progress="off")
    assert run.history["val_top1"].iloc[-1] == 1


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(4, 3, 8, 8), torch.zeros(4), "must be torch.uint8"),
        (torch.zeros(4, 3, 8, 6).byte(), torch.zeros(4), "must be squares"),
        (torch.zeros(4, 3, 8, 8).byte(), torch.zeros(3), "needs one label"),
        (torch.zeros(4, 3, 8, 8).byte(), torch.full((4,), 2), "2 classes"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(images, labels, words):
    with pytest.raises(ValueError, match=words):
        nbs.data.from_arrays((images, labels.long()), made(), ["a", "b"], title="made")
