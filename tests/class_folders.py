"""Small folders of class folders, made of random colors."""

import numpy as np
from PIL import Image

from nbs_utils.data import load_data


def leave_alone(monkeypatch, tmp_path):
    """Let a test see no data, cache or setting of this machine."""
    for name in ("NBS_QUICK", "NBS_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NBS_DEVICE", "cpu")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def write_image(path, size=(40, 40), seed=0, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.BILINEAR).save(path, kind)


def write_pets(root):
    """Write 2 classes with 12 training and 3 test images each; return their folder."""
    for label, kind in enumerate(("cat", "guinea_pig")):
        for i in range(12):
            write_image(root / f"train/{kind}/{i:02}.png", seed=100 * label + i)
        for i in range(3):
            write_image(root / f"test/{kind}/{i:02}.png", seed=900 + 10 * label + i)
    return root


def load_folder(root, **settings):
    return load_data(f"imagefolder:{root}", batch_size=4, **settings)
