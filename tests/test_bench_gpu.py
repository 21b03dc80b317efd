"""Tests of the arithmetic of times on a GPU, with a stand-in that has a clock of its own."""

import pytest

from lord_fast.bench import gpu
from lord_fast.bench.measure import Case, on_gpu

FLUSH, LAUNCH, WORK = 7.0, 0.5, 2.0


class StandIn:
    """A GPU whose events read a clock that launches, flushes and work advance.

    A launch waits for the host, except in a replay. The work takes three times as long if the cache
    was not flushed, so that a missing flush would be seen.
    """

    def __init__(self, captures=True):
        self.now, self.captures = 0.0, captures
        self.replaying = self.capturing = False
        self.cold = False

    def record(self):
        return self.now

    def seconds(self, start, end):
        return end - start

    def spend(self, seconds):
        if not self.capturing:
            self.now += seconds + (0 if self.replaying else LAUNCH)

    def flush(self):
        self.cold = True
        self.spend(FLUSH)

    def work(self, seconds=WORK):
        self.spend(seconds if self.cold else seconds / 10)
        self.cold = False

    def capture(self, work):
        if not self.captures:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        self.capturing = True
        work()
        self.capturing = False

        def replay():
            self.replaying = True
            work()
            self.replaying = False

        return replay


def test_a_cold_call_counts_neither_flushes_nor_launches():
    card = StandIn()
    assert gpu.cold(card, card.work, "work", repeats=5) == pytest.approx(WORK)


def test_work_that_cannot_be_captured_is_timed_with_its_launches():
    card = StandIn(captures=False)
    with pytest.warns(UserWarning, match="mine is timed with its launches, .*not permitted when"):
        found = gpu.cold(card, card.work, "mine", repeats=5)
    assert found == pytest.approx(WORK + LAUNCH)


def test_pipelined_calls_are_averaged_without_the_first():
    card = StandIn()
    works = [lambda s=s: card.spend(s) for s in (100.0, 1.0, 2.0, 6.0)]
    assert gpu.pipelined(card, works) == pytest.approx(3.0 + LAUNCH)


@pytest.mark.parametrize(("kernels_only", "wanted"), [(True, WORK), (False, 10 * WORK + LAUNCH)])
def test_a_case_has_a_new_input_for_each_call(kernels_only, wanted):
    card, made = StandIn(), []

    def prepare():
        made.append(None)
        return card.work if kernels_only else lambda: card.spend(10 * WORK)

    found = on_gpu(card, Case("group", "name", {}, prepare), 4, kernels_only)
    assert found == pytest.approx(wanted)
    assert len(made) == (1 if kernels_only else 5)
