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
        from lord_fast.run import snapshot

        def full(file, tensors):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

        snapshot.write_tensors = full


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


def term_at_2() -> None:
    """Send SIGTERM to the last process in its second step."""
    _term(1)


def term_at_4() -> None:
    """Send SIGTERM to the last process in its fourth step."""
    _term(3)


def _term(at: int) -> None:
    import signal

    from lord_fast.train.stage import Stage

    step, last = Stage.step, int(os.environ.get("WORLD_SIZE", "1")) - 1

    def stopped(self, number):
        if number == at and _rank() == last:
            signal.raise_signal(signal.SIGTERM)
        return step(self, number)

    Stage.step = stopped
