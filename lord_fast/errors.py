"""Exceptions that the command line turns into exit codes (bad input is a plain ValueError)."""

import signal


class Interrupted(Exception):  # noqa: N818 (not an error)
    """A signal ended a run; its state is saved.

    Attributes:
        signum: The signal's number.
    """

    def __init__(self, signum: int, where: int | str, saved: str = "all saved"):
        """Say which signal, after how many steps or at what, and what is saved."""
        name = signal.Signals(signum).name
        after = f"after step {where}" if isinstance(where, int) else where
        super().__init__(f"stopped by {name} {after}, {saved}; run it again to go on")
        self.signum = signum
