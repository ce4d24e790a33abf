"""A trained network as a file that runs without this library: ONNX or torch.export."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .photo_predictions import description_of

ENDINGS = {"onnx": ".onnx", "torch-export": ".pt2"}
TOLERANCE = 1e-3  # of a logit; kernels add up in another order, and no more than that
_METADATA = "nbs.json"


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Attributes:
        path: of the file.
        to: "onnx" or "torch-export".
        difference: largest difference of a logit from the network's own, over batches
            of 1 and 3 images.
    """

    path: Path
    to: str
    difference: float

    def __repr__(self) -> str:
        size = self.path.stat().st_size / 1e6
        return (
            f"{self.path} ({size:.1f} MB): its logits differ from the network's by at "
            f"most {self.difference:.1e}, with batches of 1 and 3."
        )


class ExportError(RuntimeError):
    """A network cannot be exported, or the file does not compute what it should."""


def export_model(network: nn.Module, path: str | Path, to: str = "onnx") -> Exported:
    """Write a trained network as a file, and check that the file computes the same.

    The input is a batch of any size of images (B, C, H, W), resized and normalized as
    the file's metadata says; the output are logits (B, K). The metadata hold class
    names, image size, mean and standard deviation as JSON: in ONNX under the key
    "nbs", in torch.export in the extra file "nbs.json".

    Args:
        network: of `nbs.load`, or trained by `nbs.fit`; it is left on its device.
        path: of the file.
        to: "onnx" (needs the packages of requirements/onnx.txt) or "torch-export".

    Raises:
        ValueError: an unknown format, or a network that does not know its classes.
        ExportError: a package is missing, the network cannot be exported, or the file
            gives other logits.
    """
    if to not in ENDINGS:
        raise ValueError(f"to is {to!r}; it must be {' or '.join(ENDINGS)}.")
    description = description_of(network)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    device = next(network.parameters()).device
    network = network.cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    shape = (description.channels, description.image_size, description.image_size)
    batches = [torch.randn(n, *shape, generator=generator) for n in (1, 3)]
    metadata = json.dumps(description.as_dict(), ensure_ascii=False)
    try:
        write, read = {
            "onnx": (_write_onnx, _read_onnx),
            "torch-export": (_write_export, _read_export),
        }[to]
        write(network, batches[1], path, metadata)
        run = read(path)
        with torch.inference_mode():
            pairs = [(run(x), network(x)) for x in batches]
    finally:
        network.to(device)
    worst = max(float((a - b).abs().max()) for a, b in pairs)
    scale = max(1.0, max(float(b.abs().max()) for _, b in pairs))
    if not worst <= TOLERANCE * scale:
        path.unlink(missing_ok=True)
        raise ExportError(
            f"{path} gave logits that differ by {worst:.2g} from the network's, which "
            "is more than rounding; it was removed. Export to the other format."
        )
    return Exported(path, to, worst)


def preprocess(metadata: str):
    """Return the description in a file's metadata."""
    from ..training.description import Description

    return Description.from_dict(json.loads(metadata))


def _dynamic(network: nn.Module) -> dict:
    import inspect

    name = next(iter(inspect.signature(network.forward).parameters))
    return {name: {0: torch.export.Dim.DYNAMIC}}


def _write_export(network: nn.Module, x: Tensor, path: Path, metadata: str) -> None:
    program = torch.export.export(network, (x,), dynamic_shapes=_dynamic(network))
    torch.export.save(program, path, extra_files={_METADATA: metadata})


def _read_export(path: Path):
    return torch.export.load(path).module()


def _write_onnx(network: nn.Module, x: Tensor, path: Path, metadata: str) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ONNX needs the package {error.name}: pip install onnx onnxscript "
            "onnxruntime (requirements/onnx.txt). --to torch-export needs nothing more."
        ) from error
    import contextlib
    import io
    import warnings

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the exporter about its own parts
        program = torch.onnx.export(
            network,
            (x,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=_dynamic(network),
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, {"nbs": metadata})
    onnx.save(model, path)


def _read_onnx(path: Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])
