"""Batch norm over the whole batch, where several processes share it.

`torch.nn.SyncBatchNorm` does this on GPUs. On CPUs it refuses to, so the class here
does it with two sums over all processes.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .distributed import world


class SumOverProcesses(torch.autograd.Function):
    """Sum a tensor over all processes.

    Every process's output depends on every process's input. So the gradient of an
    input is the sum of the gradients that arrive in all processes.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(_BatchNorm):
    """Batch norm whose mean and variance are those of all processes' images.

    In evaluation, and with one process, it is ordinary batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x (B, C) or (B, C, ...), of which each process has equally much."""
        processes = world().size
        if not self.training or processes == 1:
            return super().forward(x)
        values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = processes * x.numel() // x.shape[1]
        # The mean first: a difference of two large sums would cancel digits.
        mean = SumOverProcesses.apply(values.sum(axes)) / count
        centered = values - mean.view(shape)
        variance = SumOverProcesses.apply(centered.square().sum(axes)) / count
        self._remember(mean, variance * count / max(count - 1, 1))
        y = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked += 1
        share = self.momentum
        if share is None:  # the mean over all batches so far
            share = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"Batch norm takes (B, C, ...), and got {tuple(x.shape)}.")


def synchronize_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace batch norm in a network by synchronous batch norm.

    Args:
        network: changed in place; names, weights and statistics stay the same.
        device: where it trains; on CUDA PyTorch's own class is taken.

    Returns:
        the network (another object only where it is itself a batch norm).
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if isinstance(network, _BatchNorm):
        return _synchronous(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, _synchronous(child))
    return network


def _synchronous(norm: _BatchNorm) -> SyncBatchNorm:
    made = SyncBatchNorm(
        norm.num_features,
        norm.eps,
        norm.momentum,
        norm.affine,
        norm.track_running_stats,
    )
    made.train(norm.training)
    # the same tensors, so that whoever holds them sees them change
    made._parameters, made._buffers = norm._parameters, norm._buffers
    return made
