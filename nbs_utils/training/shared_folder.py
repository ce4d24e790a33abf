"""A run's folder, as several processes on several machines must see it."""

import os
import platform
import time
import uuid
from pathlib import Path

from ..distributed import world
from .checkpoints import CheckpointError

_FOLDER_SECONDS = 10  # a network file system shows a new file late


def check_folder(folder: Path) -> None:
    """Refuse a run's folder that not all processes see.

    After a fault any machine may be the first one, and goes on from what it finds.

    Raises:
        CheckpointError: in all processes, naming the machines that do not see it.
    """
    me = world()
    if me.size == 1:
        return
    mark, problem = folder / f".seen-{uuid.uuid4().hex}", None
    if me.first:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as error:
            problem = error.strerror
    mark, problem = me.gather((str(mark), problem))[0]
    if problem:
        raise CheckpointError(
            f"The folder {folder} cannot be written to ({problem}). Nothing was "
            "trained. Give another folder."
        )
    deadline = time.monotonic() + _FOLDER_SECONDS
    while not (seen := os.path.exists(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    blind = {host for host, sees in me.gather((platform.node(), seen)) if not sees}
    if me.first:
        os.unlink(mark)
    if blind:
        raise CheckpointError(
            f"The folder {folder.absolute()}, where process 0 keeps checkpoints, is "
            f"not seen by all: not by {', '.join(sorted(blind))}. Give a folder on a "
            "disk that all machines share, so that any of them can go on from it."
        )
