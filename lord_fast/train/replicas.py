"""Checks that all processes hold the same copies of what they do not share out."""

import hashlib

from torch import Tensor

from lord_fast.distributed.group import Group
from lord_fast.errors import Ended
from lord_fast.run.checkpoint import SHARED_OUT, State
from lord_fast.run.segments import BLOCK, Tables


def check_replicas(state: State, tables: Tables, since: int, group: Group) -> None:
    """Compare the networks, the optimizer, the log and the class table of all processes.

    Args:
        state: The tensors of this process that are saved whole.
        tables: The latent tables of this process.
        since: Compare only table rows that were updated after this many steps. The others were
            compared before.
        group: The processes.

    Raises:
        Ended: A process holds other values. The error names it.
    """
    if group.world == 1:
        return
    hashes = group.gather_texts(_digest(state, tables, since))
    wrong = [rank for rank, found in enumerate(hashes) if found != hashes[0]]
    if wrong:
        many = len(wrong) > 1
        raise Ended(
            f"step {group.step}: process{'es' if many else ''} {', '.join(map(str, wrong))} "
            f"{'differ' if many else 'differs'} from process 0 in the networks, the optimizer or "
            f"the class codes, so nothing was saved; repeat the command to continue from the last "
            f"checkpoint, and look for broken memory or unlike software if it happens again"
        )


def _digest(state: State, tables: Tables, since: int) -> str:
    found = hashlib.sha256()
    for name, tensors in sorted(state.items()):
        _add(found, name, tensors)
    for name, shards in sorted(tables.items()):
        for shard in shards.values() if name != SHARED_OUT else ():
            for rows in (shard.last_step > since).nonzero()[:, 0].split(BLOCK):
                _add(found, name, {"rows": rows, **shard.read_rows(rows)})
    return found.hexdigest()


def _add(found: "hashlib._Hash", name: str, tensors: dict[str, Tensor]) -> None:
    for key, tensor in sorted(tensors.items()):
        found.update(f"{name}/{key}".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).numpy().data.cast("B"))
