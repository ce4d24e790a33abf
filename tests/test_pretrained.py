"""Published weights: from a cache, from a path, damaged, foreign, of timm."""

import hashlib
import socket
import sys
from enum import Enum
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from nbs_utils.parity import NoConnection, WrongWeights, load_pretrained
from nbs_utils.parity.weights import (
    _hub_not_retrying,
    _no_path_printed,
    _reachable,
    read_published,
)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publish a file of weights for squeezenet1_1 at an address of our own."""
    torch.manual_seed(1)
    network = models.squeezenet1_1()
    draft = tmp_path / "draft.pth"
    torch.save(network.state_dict(), draft)
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()[:8]
    name = f"squeezenet1_1-{digest}.pth"

    class Weights(Enum):
        DEFAULT = SimpleNamespace(url=f"https://weights.invalid/{name}")
        url = property(lambda self: self.value.url)

    monkeypatch.setattr(models, "get_model_weights", lambda name: Weights)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def offline(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return SimpleNamespace(network=network, file=draft, name=name, folder=tmp_path)


def test_published_weights_from_the_cache_and_from_a_path(published):
    ours = models.squeezenet1_1()
    with pytest.raises(NoConnection, match=r"weights.invalid cannot be reached"):
        load_pretrained(ours, "squeezenet1_1")
    assert load_pretrained(ours, "squeezenet1_1", path=published.file).complete
    assert torch.equal(ours.features[0].weight, published.network.features[0].weight)
    cached = published.folder / "hub" / "checkpoints" / published.name
    cached.write_bytes(published.file.read_bytes())
    other = models.squeezenet1_1()
    assert load_pretrained(other, "squeezenet1_1").complete
    assert torch.equal(other.features[0].weight, ours.features[0].weight)


def test_damaged_and_foreign_weights_are_refused(published):
    ours = models.squeezenet1_1()
    before = ours.features[0].weight.clone()
    cut = published.folder / "cut.pth"
    cut.write_bytes(published.file.read_bytes()[:-100])
    with pytest.raises(WrongWeights, match="damaged or another file"):
        load_pretrained(ours, "squeezenet1_1", path=cut)
    with pytest.raises(WrongWeights, match="not those of squeezenet1_0"):
        load_pretrained(ours, "squeezenet1_0", path=published.file)
    with pytest.raises(WrongWeights, match="There is no file"):
        load_pretrained(ours, "squeezenet1_1", path=published.folder / "none.pth")
    assert torch.equal(ours.features[0].weight, before)


def test_a_file_that_is_no_dictionary_of_weights(tmp_path):
    file = tmp_path / "x.pth"
    torch.save({"a": torch.ones(1)}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    state = read_published(f"https://weights.invalid/x-{digest[:8]}.pth", file)
    assert state["a"].item() == 1


def test_weights_of_timm_from_a_file(tmp_path):
    timm = pytest.importorskip("timm", reason="pip install timm")
    torch.manual_seed(3)
    theirs = timm.create_model("resnet18")
    file = tmp_path / "resnet18.pth"
    torch.save(theirs.state_dict(), file)
    ours = models.resnet18()
    assert load_pretrained(ours, "timm/resnet18", path=file).complete
    assert torch.equal(ours.fc.weight, theirs.fc.weight)
    with pytest.raises(WrongWeights, match="not those of timm/resnet34"):
        load_pretrained(models.resnet34(), "timm/resnet34", path=file)
    with pytest.raises(WrongWeights, match="do not fit ResNet"):
        load_pretrained(models.resnet34(), "timm/resnet18", path=file)
    with pytest.raises(
        ValueError, match="no weights 'v9' for resnet18. It has .*a1_in"
    ):
        load_pretrained(ours, "timm/resnet18", "v9")
    with pytest.raises(ValueError, match="timm has no classification network"):
        load_pretrained(ours, "timm/resnet5")
    cut = tmp_path / "cut.pth"
    cut.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WrongWeights, match="damaged"):
        load_pretrained(ours, "timm/resnet18", path=cut)
    with pytest.raises(WrongWeights, match="There is no file"):
        load_pretrained(ours, "timm/resnet18", path=tmp_path / "none.pth")


def test_weights_of_timm_without_a_connection(monkeypatch):
    timm = pytest.importorskip("timm", reason="pip install timm")
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(NoConnection, match="resnet18 is not on this machine"):
        load_pretrained(nn.Linear(1, 1), "timm/resnet18")


def test_a_hub_that_cannot_be_reached_is_not_asked_again_and_again(monkeypatch):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for reachable in (True, False):
        monkeypatch.setattr(
            "nbs_utils.parity.weights._reachable", lambda _, answer=reachable: answer
        )
        with _hub_not_retrying():
            assert constants.HF_HUB_OFFLINE is not reachable
        assert constants.HF_HUB_OFFLINE is False


def test_a_server_answers_or_does_not(monkeypatch):
    monkeypatch.setattr("nbs_utils.parity.weights.getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert _reachable(address)
    assert not _reachable(address)
    monkeypatch.setattr(
        "nbs_utils.parity.weights.getproxies", lambda: {"http": "http://proxy.invalid"}
    )
    assert _reachable(address)  # only the proxy could say


def test_the_folder_of_the_cache_is_not_printed(capsys, monkeypatch, tmp_path):
    """As where the weights of timm's older networks are fetched, by torch.hub."""
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: None)
    monkeypatch.setattr(torch, "load", lambda *_, **__: {})
    url = "https://example.org/weights.pth"
    torch.hub.load_state_dict_from_url(url, model_dir=str(tmp_path))
    said = capsys.readouterr()
    assert str(tmp_path) in said.out + said.err  # what the line would say
    with _no_path_printed():
        torch.hub.load_state_dict_from_url(url, model_dir=str(tmp_path))
        print("12 %", file=sys.stderr)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "12 %\n")
