"""How many wrong networks does the proof of equality see? Prints "N of M caught".

    python benchmarks/mutants.py                      every architecture, all kinds
    python benchmarks/mutants.py --architectures resnet18 timm/seresnet50
    python benchmarks/mutants.py --every 10           one of ten faults of each

Each architecture that the book has in common with torchvision, timm or pytorchcv gets
random weights by `reference_network`; its own copy, transplanted, in another memory
layout, must be found equal, and each of its mutants (`nbs_utils.parity.mutants`) must
not. A survivor counts as missed if a search that does not use `compare` finds an input
on which it computes something else (`changes_function`), else as a fault that changes
nothing, such as maximum in place of average over a map of one pixel.
"""

import argparse
import copy
import json
import time
from collections import Counter, defaultdict

import torch

import nbs_utils as nbs
from nbs_utils.parity.calibration import enliven, native_size, varied_images
from nbs_utils.parity.mutants import changes_function, held_to, mutants_of

# name -> side of the images on which it is tried; small ones where that is possible
ARCHITECTURES = {
    "alexnet": 224,  # at 96 px one of the odd sizes is too small for it
    "vgg11": 64,
    "vgg11_bn": 64,
    "googlenet": 96,
    "inception_v3": 128,
    "resnet18": 64,
    "resnet50": 64,
    "wide_resnet50_2": 64,
    "resnext50_32x4d": 64,
    "densenet121": 96,
    "convnext_tiny": 64,
    "squeezenet1_0": 96,
    "squeezenet1_1": 96,
    "mobilenet_v2": 96,
    "mobilenet_v3_large": 96,
    "mobilenet_v3_small": 96,
    "shufflenet_v2_x0_5": 96,
    "shufflenet_v2_x1_0": 96,
    "mnasnet1_0": 96,
    "efficientnet_b0": 96,
    "vit_b_16": 32,
    "swin_t": 96,
    "timm/legacy_xception": 128,
    "timm/seresnet50": 64,
    "timm/seresnext50_32x4d": 64,
    "timm/darknet53": 96,
    "timm/mobilenetv1_100": 96,
    "timm/semnasnet_100": 96,
    "timm/tf_efficientnet_b0": 96,
    "timm/vit_small_patch32_224": 224,
    "timm/mixer_s32_224": 224,
    "ptcv/mobilenet_wd4": 224,
    "ptcv/nin_cifar10": 32,
    "ptcv/preresnet20_cifar10": 32,
    "ptcv/wrn16_10_cifar10": 32,
    "ptcv/densenet40_k12_cifar10": 32,
    "ptcv/darknet19": 224,
    "ptcv/shufflenet_g1_w1": 224,
    "ptcv/shufflenet_g3_w1": 224,
    "ptcv/bninception": 224,
    "ptcv/xception": 299,
    "zoo/alexnet_2012": 227,
    "zoo/bn_inception": 64,
    "zoo/bn_inception_caffe": 64,
    "zoo/cifar_resnet20": 32,
    "zoo/convnext_mini": 64,
    "zoo/cyclemlp_b1": 64,
    "zoo/darknet19": 64,
    "zoo/darknet21_mini": 64,
    "zoo/densenet121": 64,
    "zoo/densenet_40_12": 32,
    "zoo/efficientnet_b0": 96,
    "zoo/efficientnet_mini": 96,
    "zoo/googlenet": 96,
    "zoo/mixer_mini_16": 128,
    "zoo/mobilenet_v1_x0_25": 96,
    "zoo/mnasnet0_5": 96,
    "zoo/mnasnet_a1": 96,
    "zoo/mobilenet_v2": 96,
    "zoo/mobilenet_v2_x0_35": 96,
    "zoo/mobilenet_v3_large": 96,
    "zoo/mobilenet_v3_small_x0_5": 96,
    "zoo/nin": 96,
    "zoo/nin_cifar": 32,
    "zoo/inception_v3": 128,
    "zoo/resnet18": 64,
    "zoo/resnet50_v1": 64,
    "zoo/resnext29_32x4d": 32,
    "zoo/se_resnext26_mini": 64,
    "zoo/shufflenet_v1_x0_5_g3": 64,
    "zoo/shufflenet_v2_x0_5": 96,
    "zoo/squeezenet1_0_complex_bypass": 96,
    "zoo/swin_mini": 64,
    "zoo/preact_resnet18": 64,
    "zoo/wrn_16_4": 32,
    "zoo/vgg11_lrn": 64,
    "zoo/vgg16_1x1": 64,
    "zoo/vit_mini_16": 128,
    "zoo/xception_mini": 128,
}
_OPTIONS = {"vit_b_16": {"image_size": 32}}


def build(name: str) -> torch.nn.Module:
    """Return a network whose signals live."""
    if not name.startswith("zoo/"):
        return nbs.reference_network(name, **_OPTIONS.get(name, {}))
    torch.manual_seed(0)
    short = name.removeprefix("zoo/")
    network = nbs.create_model(short)
    network.image_size = nbs.zoo.model_entry(short).image_size
    enliven(network)
    return network


def equal_forms(network: torch.nn.Module):
    """Yield (what was done, a network that must be found equal)."""
    yield "a transplanted copy", _transplanted(network)
    yield "channels last", copy.deepcopy(network).to(memory_format=torch.channels_last)
    yield "itself in double precision", copy.deepcopy(network).double()


def _transplanted(network: torch.nn.Module) -> torch.nn.Module:
    other = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            if tensor.is_floating_point():
                tensor.zero_()
    nbs.transplant(network, other, native_size(network))
    return other


def try_architecture(name: str, every: int = 1) -> list[dict]:
    """Compare one network with its equal forms and with its mutants.

    Returns:
        One dictionary per comparison: architecture, kind, where, and how it ended:
        "equal", "refused", "caught", "missed" or "no change".
    """
    network, side = build(name), ARCHITECTURES.get(name, 224)
    size = (native_size(network)[0], side, side)
    rows = []

    def add(kind, where, ended, comparison):
        rows.append(
            {
                "architecture": name,
                "kind": kind,
                "where": where,
                "ended": ended,
                "relative": comparison.relative,
                "sizes": comparison.sizes,
            }
        )

    for what, equal in equal_forms(network):
        comparison = nbs.compare(equal, network, input_size=size)
        add("equal", what, "equal" if comparison.agrees else "refused", comparison)
    network.double()  # so that no comparison has to copy it
    images = varied_images(2, size).double()
    for number, mutant in enumerate(mutants_of(network, images)):
        if number % every:
            continue
        comparison = held_to(network, mutant.network, images)
        ended = "caught"
        if comparison.agrees:
            changed = changes_function(network, mutant.network)
            ended = "missed" if changed else "no change"
        add(mutant.kind, mutant.where, ended, comparison)
    return rows


def report(rows: list[dict]) -> str:
    """Return the tables and the sentence of the result."""
    faults = [r for r in rows if r["ended"] in ("caught", "missed")]
    caught = sum(r["ended"] == "caught" for r in faults)
    lines = []
    for key in ("architecture", "kind"):
        count = defaultdict(Counter)
        for row in rows:
            if row["kind"] != "equal":
                count[row[key]][row["ended"]] += 1
        table = [
            (k, c["caught"], c["caught"] + c["missed"], c["no change"])
            for k, c in sorted(count.items())
        ]
        columns = [key, "caught", "of", "change nothing"]
        lines += [repr(nbs.Table(table, columns=columns)), ""]
    for row in rows:
        if row["ended"] in ("missed", "refused", "no change"):
            lines.append(
                f"{row['ended']}: {row['architecture']}, {row['kind']}, "
                f"{row['where']} (relative {row['relative']:.0e})"
            )
    equal = [r["relative"] for r in rows if r["kind"] == "equal"]
    refused = sum(r["ended"] == "refused" for r in rows)
    least = sorted(r["relative"] for r in faults if r["ended"] == "caught")[:5]
    lines.append(
        f"{len(equal)} comparisons of equal networks, {refused} refused; their largest "
        f"relative difference is {max(equal, default=0):.0e}, the smallest of the "
        f"caught faults are {', '.join(f'{v:.0e}' for v in least)}."
    )
    lines.append(f"{caught} of {len(faults)} caught")
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark; the status is 1 when a fault was missed or a copy refused."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--every", type=int, default=1, help="one of so many faults")
    parser.add_argument("--json", help="write the single comparisons to this file")
    options = parser.parse_args()
    rows = []
    for name in options.architectures:
        start = time.perf_counter()
        found = try_architecture(name, options.every)
        rows += found
        ended = Counter(r["ended"] for r in found)
        said = ", ".join(f"{n} {what}" for what, n in sorted(ended.items()))
        seconds = time.perf_counter() - start
        print(f"{name}: {said} ({seconds:.0f} s)", flush=True)
        if options.json:
            with open(options.json, "w") as file:
                json.dump(rows, file, indent=1)
    print(report(rows))
    return int(any(r["ended"] in ("missed", "refused") for r in rows))


if __name__ == "__main__":
    raise SystemExit(main())
