"""Faults that `tests.processes` puts into the processes that it starts."""

import errno
import os



def plain_all_reduce() -> None:
    """Let the library choose the order of the sum."""
    import torch.distributed as dist

    from lord_fast.distributed.processes import Processes

    def plain(self, values):
        values = values.clone()
        dist.all_reduce(values)
        return values

    Processes.sum = plain


def arrival_order() -> None:
    """Gather rows in the order in which they might arrive."""
    from lord_fast.distributed.processes import Processes

    gather = Processes.gather_rows

    def late(self, rows):
        return gather(self, rows).roll(len(rows), 0)

    Processes.gather_rows = late


def local_noise() -> None:
    """Make the noise depend on the row in the virtual rank's table instead of the image."""
    from lord_fast.model.latent import LatentTable

    gather = LatentTable.gather
    LatentTable.gather = lambda self, rows, step, noise_ids=None: gather(self, rows, step)


def flipped_bit() -> None:
    """Change one weight of process 1 after its third step."""
    if _rank() == 1:
        from lord_fast.train.stage import Stage

        step = Stage.step

        def broken(self, number):
            found = step(self, number)
            if number == 2:
                next(self.decoder.parameters()).data.view(-1)[0] += 1e-3
            return found

        Stage.step = broken


def full_disk() -> None:
    """Let process 1 find no room for its tables."""
    if _rank() == 1:
        from lord_fast.run import checkpoint

        def full(file, tensors):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

        checkpoint.write_tensors = full


def slow() -> None:
    """Make steps take a while, so that a test can reach them."""
    import time

    from lord_fast.train.stage import Stage

    step = Stage.step

    def late(self, number):
        time.sleep(0.05)
        return step(self, number)

    Stage.step = late


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
