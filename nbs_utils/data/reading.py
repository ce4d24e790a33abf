"""Reading ahead: files are decoded in threads while a network computes.

Threads and not processes, because everything that takes time lets go of Python's lock:
reading a file, decoding it, resizing it, and the network itself. They need no copy of
the program (a notebook, macOS and Windows have none that could be forked or imported
again), their results need not be sent, and a process whose other threads are at work
(PyTorch's, gloo's, a notebook's) need not be forked, which can hang forever.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def in_order(
    work: Callable[[Any], Any], items: Iterable, threads: int, ahead: int
) -> Iterator[Any]:
    """Yield `work(item)` for each item in order, computed in threads ahead of time.

    The threads begin with the first result that is asked for, and have ended when the
    last one has been taken, when the generator is closed, or when it raises.

    Args:
        work: called in a thread, where PyTorch computes without further threads. An
            exception is raised here, at the place of its item.
        items: taken one by one in the thread of the caller, `ahead` of the results.
        threads: how many work at the same time; 0 calls `work` here, when its turn
            comes.
        ahead: how many results may wait; it bounds the memory.
    """
    if threads < 1:
        yield from map(work, items)
        return
    before = torch.get_num_threads()
    ready = threading.Barrier(threads + 1)

    def compute_alone() -> None:  # PyTorch's own threads would wait for each other
        # Asked first: a thread takes the number that holds for the process when it
        # is asked for the first time, which would otherwise be after this.
        torch.get_num_threads()
        torch.set_num_threads(1)
        ready.wait(60)

    pool = ThreadPoolExecutor(threads, "nbs-reader", compute_alone)
    waiting: deque = deque()
    try:
        started = [pool.submit(int) for _ in range(threads)]
        ready.wait(60)
        torch.set_num_threads(before)  # of this thread, in which the network computes
        for future in started:
            future.result()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
