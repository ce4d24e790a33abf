"""Draw one block of each kind of network, and whole networks, on one page.

    python tools/gallery.py gallery            # writes gallery/index.html
    python tools/gallery.py gallery --shots    # and pictures of it, with Chromium

For looking at what `draw_network` makes of them: wide, on a phone, and dark. With
`--networks` the page shows networks of torchvision instead of blocks.
"""

import argparse
import subprocess
import sys
from html import escape
from pathlib import Path

from torch import nn
from torchvision import models

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]

from blocks import BLOCKS
from browser import find_chromium, launch_arguments

from nbs_utils.figures import network_svg

NETWORKS = (
    *("alexnet", "vgg11_bn", "googlenet", "inception_v3", "resnet50", "densenet121"),
    *("squeezenet1_1", "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0"),
    *("mnasnet1_0", "efficientnet_b0", "convnext_tiny", "swin_t", "vit_b_16"),
)
# width of the window in pixels, and whether the page is dark
VIEWS = {"wide": (900, False), "narrow": (390, False), "dark": (900, True)}
PAGE = """<!doctype html><meta charset="utf-8"><title>Gallery</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ font: 16px system-ui, sans-serif; margin: 12px auto; max-width: 740px;
padding: 0 8px; background: {background}; color: {color} }}
h2 {{ font-size: 18px; margin: 28px 0 6px }} svg {{ margin-bottom: 18px !important }}
</style><h1>Gallery</h1>{body}"""


def drawings(networks: bool) -> list[tuple[str, str]]:
    """Return (heading, SVG) of each drawing."""
    if networks:
        return [
            (name, network_svg(models.get_model(name, weights=None), (3, 224, 224)))
            for name in NETWORKS
        ]
    found = []
    for name, (build, size) in BLOCKS.items():
        closed = nn.Sequential(build())
        found += [
            (name, network_svg(build(), size)),
            (f"{name}, closed", network_svg(closed, size, 1)),
            (f"{name}, every layer", network_svg(build(), size, "leaf")),
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the page goes")
    parser.add_argument("--networks", action="store_true", help="whole networks")
    parser.add_argument("--shots", action="store_true", help="pictures of the page")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    body = "".join(
        f"<h2>{escape(name)}</h2>{svg}" for name, svg in drawings(options.networks)
    )
    for view, (width, dark) in VIEWS.items():
        colors = ("#121212", "#e8e8e8") if dark else ("#ffffff", "#1c1c1c")
        page = PAGE.format(background=colors[0], color=colors[1], body=body)
        path = options.folder / f"{view}.html"
        path.write_text(page, encoding="utf-8")
        print(path)
        if options.shots:
            shoot(path, width)


def shoot(page: Path, width: int) -> None:
    """Save a picture of a page beside it."""
    picture = page.with_suffix(".png")
    subprocess.run(
        [
            find_chromium(),
            "--headless",
            "--disable-gpu",
            "--hide-scrollbars",
            *launch_arguments(),
            f"--window-size={width},24000",
            f"--screenshot={picture}",
            page.resolve().as_uri(),
        ],
        check=True,
        capture_output=True,
    )
    print(picture)


if __name__ == "__main__":
    main()
