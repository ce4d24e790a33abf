"""Images per second of `evaluate`: beside the network alone, by protocol, by decoder.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --rounds 5 --images 512 --batch-size 64
    python benchmarks/evaluation.py --only center          # or protocols, or files

The machine's speed changes while a benchmark runs, so contestants take turns, each round
begins with another one, and every one is compared with its partner of the same round.
Tables show medians over the rounds.

center: `evaluate` on images that lie decoded in memory as bytes, with everything that it
does (crop, normalization, logits in the right order, ties, ranks, confusions), beside
the network alone on float32 batches that were cropped and normalized beforehand. Each is
compared with the network alone in the same precision and the same memory format.

protocols: images per second of each protocol, and pictures per second: an image of
ten_crop is ten pictures. Dense pictures are larger than crops.

files: what decodes a JPEG fastest, in one thread, and then `evaluate` from files, which
decodes while it computes; in float32, as random weights tie in 16 bits all the time.
"""

import argparse
import dataclasses
import importlib.util
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import nbs_utils as nbs
from nbs_utils.data import load_photographs
from nbs_utils.data.decoding import decode_file
from nbs_utils.data.protocols import list_protocols, parse, views
from nbs_utils.data.storage import ArrayStore


def make_split(images: int, pixels: int, batch_size: int, device: torch.device):
    """Return a split of random images, stored a quarter larger than they are used."""
    data = nbs.load_data(
        "digits", image_size=pixels, channels=3, batch_size=batch_size, device=device
    )
    side = pixels * 5 // 4
    generator = torch.Generator().manual_seed(0)
    shape = (images, 3, side, side)
    stored = torch.randint(0, 256, shape, generator=generator).byte().to(device)
    labels = torch.randint(0, 10, (images,), generator=generator)
    store = ArrayStore(stored, labels, torch.arange(images))
    return dataclasses.replace(
        data.test, store=store, labels=labels, center=7 / 8, _view=None
    )


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(contestants: dict, rounds: int) -> dict[str, list[float]]:
    """Return images per second of each contestant in each round; one warms up."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(-1, rounds):
        for i in range(len(names)):
            name = names[(i + max(turn, 0)) % len(names)]
            work, images = contestants[name]
            started = time.perf_counter()
            work()
            if turn >= 0:
                speeds[name].append(images / (time.perf_counter() - started))
    return speeds


def center(options, device) -> None:
    """The network alone and `evaluate`, in both precisions and memory formats."""
    split = make_split(options.images, options.pixels, options.batch_size, device)
    tensors = [x.clone() for x, _ in split.batches()]
    network = nbs.create_model(options.model, num_classes=10).to(device).eval()
    auto = nbs.runtime.precision("auto", device)

    def alone(dtype, layout):
        network.to(memory_format=layout)
        batches = [x.contiguous(memory_format=layout) for x in tensors]

        def work():
            network.to(memory_format=layout)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
            ):
                for x in batches:
                    network(x)
            wait(device)

        return work, options.images

    def whole(precision, layout):
        def work():
            network.to(memory_format=layout)
            nbs.evaluate(network, split, precision=precision, device=device)

        return work, options.images

    contestants, pairs = {}, []
    precisions = ["float32"] + (["auto"] if auto.name != "float32" else [])
    for precision in precisions:
        dtype = torch.float32 if precision == "float32" else auto.dtype
        for word, layout in (
            ("contiguous", torch.contiguous_format),
            ("channels last", torch.channels_last),
        ):
            name = f"{precision}, {word}"
            contestants[f"network alone, {name}"] = alone(dtype, layout)
            contestants[f"evaluate, {name}"] = whole(precision, layout)
            pairs.append((f"evaluate, {name}", f"network alone, {name}"))
    speeds = take_turns(contestants, options.rounds)
    print(
        f"\n{options.model}, {options.pixels} px, {options.images:,} decoded images, "
        f"batch {options.batch_size}, protocol center"
    )
    print(f"  {'':<40}{'images/s':>10}{'share of network alone':>26}")
    for mine, like in pairs:
        print(f"  {like:<40}{statistics.median(speeds[like]):>10,.1f}")
        shares = sorted(a / b for a, b in zip(speeds[mine], speeds[like], strict=True))
        print(
            f"  {mine:<40}{statistics.median(speeds[mine]):>10,.1f}"
            f"{statistics.median(shares):>12.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"
        )


def protocols(options, device) -> None:
    """Images and pictures per second of every protocol."""
    few = options.few
    split = make_split(few, options.pixels, options.batch_size, device)
    network = nbs.create_model(options.model, num_classes=10).to(device).eval()
    side = split.store.read([torch.arange(1)])
    side = next(side)[0].shape[-1]
    speeds = take_turns(
        {
            name: (lambda name=name: nbs.evaluate(network, split, protocol=name), few)
            for name in list_protocols()
        },
        options.few_rounds,
    )
    print(f"\n{options.model}, crop {options.pixels} px, {few} decoded images, auto")
    print(f"  {'protocol':<20}{'pictures':>10}{'images/s':>10}{'megapixels/s':>14}")
    for name, values in speeds.items():
        found = [v for p in parse(name) for v in views(p, side, side, options.pixels)]
        pixels = sum(v.size[0] * v.size[1] for v in found) / 1e6
        speed = statistics.median(values)
        print(f"  {name:<20}{len(found):>10}{speed:>10.2f}{speed * pixels:>14.2f}")


def make_jpegs(folder: Path, count: int) -> list[Path]:
    """Write photographs of ImageNet's usual size: 500 x 375, quality 90."""
    from sklearn.datasets import load_sample_image

    scene = Image.fromarray(load_sample_image("china.jpg"))
    paths = []
    (folder / "tench").mkdir()
    for i in range(count):
        left, top = i % 40, i // 40
        part = scene.crop((left, top, left + 560, top + 380)).resize((500, 375))
        paths.append(folder / "tench" / f"{i:04d}.jpg")
        part.save(paths[-1], quality=90)
    return paths


def files(options, device) -> None:
    """What decodes a JPEG fastest, and `evaluate` from files."""
    with tempfile.TemporaryDirectory() as place:
        paths = make_jpegs(Path(place), options.files)

        def with_pil():
            for path in paths:
                with Image.open(path) as image:
                    np.asarray(image.convert("RGB"))

        def with_torchvision():
            for path in paths:
                decode_file(path)

        contestants = {
            "torchvision (libjpeg-turbo)": (with_torchvision, len(paths)),
            "PIL": (with_pil, len(paths)),
        }
        if importlib.util.find_spec("cv2"):
            import cv2

            def with_opencv():
                for path in paths:
                    cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)

            contestants["OpenCV"] = (with_opencv, len(paths))
        speeds = take_turns(contestants, options.rounds)
        print(f"\ndecoding {len(paths)} JPEG files of 500 x 375, one thread")
        for name, values in speeds.items():
            print(f"  {name:<40}{statistics.median(values):>10,.0f} images/s")
        if "OpenCV" not in contestants:
            print("  OpenCV is not installed")

        photographs = load_photographs(
            place,
            image_size=options.pixels,
            device=device,
            batch_size=options.batch_size,
        )
        network = nbs.create_model(options.model).to(device).eval()
        network.to(memory_format=torch.channels_last)
        batches = [
            x.contiguous(memory_format=torch.channels_last)
            for x, _ in photographs.batches(device=device)
        ]

        def alone():
            with torch.inference_mode():
                for x in batches:
                    network(x)
            wait(device)

        def decode():
            for _ in photographs.stream(photographs.center_crop):
                pass

        speeds = take_turns(
            {
                "decode and crop alone, all threads": (decode, len(paths)),
                "network alone, float32": (alone, len(paths)),
                "evaluate from files, float32": (
                    lambda: nbs.evaluate(
                        network, photographs, device=device, precision="float32"
                    ),
                    len(paths),
                ),
            },
            options.rounds,
        )
        print(f"\nfrom files, crop {options.pixels} px, protocol center")
        for name, values in speeds.items():
            print(f"  {name:<40}{statistics.median(values):>10,.1f} images/s")


PARTS = {"center": center, "protocols": protocols, "files": files}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--pixels", type=int, default=160)
    parser.add_argument("--images", type=int, default=256, help="of center")
    parser.add_argument("--few", type=int, default=8, help="images of protocols")
    parser.add_argument("--files", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--few-rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = nbs.device()
    chosen = nbs.runtime.precision("auto", device)
    print(f"{nbs.runtime.device_name(device)}, {torch.get_num_threads()} threads")
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    print(f"auto is {chosen} ({chosen.why})")
    if device.type == "cpu":
        nbs.runtime.keep_freed_memory()
    for name, part in PARTS.items():
        if options.only in (None, name):
            part(options, device)


if __name__ == "__main__":
    main()
