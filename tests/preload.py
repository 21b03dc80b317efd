"""What the processes of `tests.processes` share. No thread may start here."""

import torch._dynamo  # the first optimizer imports it
import torch.distributed

import lord_fast.cli
import lord_fast.train.start

__all__ = ["lord_fast", "torch"]
