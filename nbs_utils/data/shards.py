"""Images in WebDataset shards: tar files on a server, in a bucket, behind a command.

A shard is a tar file in which each image lies beside a file of the same name with its
class: `n01440764/0001.jpg` and `n01440764/0001.cls`. The `webdataset` package reads
shards from wherever it is told to, in one stream from beginning to end. That suits
stores that are not a file system, but a stream can be shuffled only nearby, and shared
among processes only shard by shard.

So the shards are read once, onto a disk of each machine, as class folders. From there
images are streamed like those of any folder: shuffled as a whole, in an order that
does not depend on the number of processes, and resumed exactly.
"""

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from .datasets import DataNotFound
from .decoding import EXTENSIONS

NEEDED = "pip install 'nbs-utils[shards]'"


def unpack_shards(patterns: str, root: Path) -> Path:
    """Read shards into class folders, once; return the folder.

    Args:
        patterns: of the training shards, as in `https://host/train-{000..146}.tar` or
            `pipe:aws s3 cp s3://bucket/train-{000..146}.tar -`; after ` | `
            follows that of the validation shards, if there are any.
        root: where the folder goes. What is there already is not read again.

    Raises:
        DataNotFound: the webdataset package is missing, a shard cannot be read, or an
            image has no class.
    """
    words = patterns.split(" | ")
    if not 1 <= len(words) <= 2:
        raise ValueError(
            f"'{patterns}' names {len(words)} patterns of shards; give one for the "
            "training images, or two with ' | ' between, the second for validation."
        )
    digest = hashlib.blake2b("\n".join(words).encode(), digest_size=8).hexdigest()
    folder = root / f"shards-{digest}"
    if folder.is_dir():
        return folder
    draft = root / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        for pattern, split in zip(words, ("train", "val")):
            _unpack(pattern, draft / split)
        draft.rename(folder)  # as a whole, or not at all
    except OSError as error:
        if not folder.is_dir():  # else another process was first
            raise DataNotFound(
                f"The shards could not be unpacked to {folder} ({error})."
            ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def are_local_files(patterns: str) -> bool:
    """Tell whether patterns name nothing but tar files on this machine.

    All others are handed to a shell by `webdataset`: `pipe:COMMAND` as it stands, and
    addresses as arguments of `curl` and its like. A list of shards (.yaml) may hold
    either.

    Args:
        patterns: as `unpack_shards` takes them.
    """
    return all(
        ":" not in pattern and pattern.strip().endswith((".tar", ".tar.gz", ".tgz"))
        for pattern in patterns.split(" | ")
    )


def _unpack(pattern: str, folder: Path) -> None:
    count = 0
    for count, (name, label, data) in enumerate(_samples(pattern), 1):
        path = folder / _folder_name(label, name, pattern) / _flat(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if not count:
        raise DataNotFound(f"There is no image in the shards {pattern}.")


def _folder_name(label: str, name: str, pattern: str) -> str:
    """Return a class that can be the name of one folder, on every system.

    Raises:
        DataNotFound: it cannot; as a path it would lead out of the folder.
    """
    plain = PurePosixPath(label).name == PureWindowsPath(label).name == label
    if not plain or label in ("", ".", "..") or not label.isprintable():
        raise DataNotFound(
            f"The class of {name} in {pattern} is {label!r}; a class becomes the name "
            "of a folder and may hold no slash and no colon. Write its .cls file anew."
        )
    return label


def _flat(name: str) -> str:
    """Return the file name of an image, whatever folders its key names."""
    return name.replace("/", "_").replace("\\", "_").replace(":", "_")


def _samples(pattern: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield a file name, a class and an encoded image for each sample."""
    try:
        import webdataset
    except ImportError as error:
        raise DataNotFound(
            f"Reading shards needs the webdataset package: {NEEDED}."
        ) from error
    stream = webdataset.WebDataset(
        pattern,
        shardshuffle=False,
        empty_check=False,
        nodesplitter=lambda shards: shards,  # this process reads all of them
    )
    try:
        for sample in stream:
            found = [e for e in EXTENSIONS if e[1:] in sample]
            key = sample["__key__"]
            if not found or "cls" not in sample:
                raise DataNotFound(
                    f"The sample {key} of {pattern} has no "
                    f"{'class (.cls)' if found else 'image'}, but "
                    f"{', '.join(k for k in sample if k[0] != '_')}."
                )
            label = sample["cls"].decode().strip()
            if label.isdigit():  # folders are sorted as words, and numbers must agree
                label = label.zfill(6)
            yield key + found[0], label, sample[found[0][1:]]
    except (OSError, ValueError, EOFError) as error:
        raise DataNotFound(f"The shards {pattern} cannot be read: {error}") from error
