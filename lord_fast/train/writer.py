"""Writes checkpoints in a thread while training goes on."""

import threading
from collections.abc import Callable


class Writer:
    """Runs one job at a time in a thread of its own.

    As a context manager it waits for the job at the end, so that no thread writes to a run that is
    no longer locked. Only a KeyboardInterrupt does not wait, because the process is to end at once.
    The temporary folder of the job is then left and removed by the next training.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.wait()
        elif self._thread is not None and not issubclass(kind, KeyboardInterrupt):
            self._thread.join()

    def start(self, job: Callable[[], object]) -> None:
        """Wait for the previous job, then start one.

        Raises:
            BaseException: What ended the previous job.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the job, if there is one.

        Raises:
            BaseException: What ended the job.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what ended the job, if it has failed. This does not wait."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            self._error = error
