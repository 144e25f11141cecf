"""What the loaders add to the reads, as ratios of calls measured in turn."""

from pathlib import Path

from benchmarks.suites import Fixture

RATIOS = ("overhead", "ring", "pairs", "foreground")
ROUNDS = 9


def outcome(name, task):
    """Return the outcome of one goal; asv skips what this version lacks."""
    from benchmarks.reach_loaders import ratio_outcome

    try:
        return ratio_outcome(name, task, ROUNDS)
    except (ImportError, AttributeError) as error:
        raise NotImplementedError(f"this version lacks what {name} takes: {error}") from error


class Ratios(Fixture):
    """The figure that a goal is about, and how far it stays below it: 0 is reached.

    Some figures are speeds and some are times, so a search for regressions looks at the shortfall,
    where up is always worse.
    """

    params = RATIOS
    param_names = ("goal",)

    def track_ratio(self, task, goal):
        return outcome(goal, task).figure

    track_ratio.unit = "x"

    def track_shortfall(self, task, goal):
        return outcome(goal, task).shortfall

    track_shortfall.unit = "of the target"


class FirstBatch(Fixture):
    """Opening a store, making a loader and taking the first batch, everything decoded before."""

    unit = "ms"

    def track_first_batch(self, task):
        from benchmarks.reach_loaders import first_batch_outcome

        return first_batch_outcome(task).figure


class Construction(Fixture):
    """Making a loader over many volumes: seconds, and tables read."""

    params = (100_000,)
    param_names = ("volumes",)

    def setup(self, task, volumes):
        from benchmarks.reach_loaders import construction_outcomes

        try:
            self.outcomes = construction_outcomes(Path.cwd(), volumes)
        except (ImportError, AttributeError, TypeError) as error:
            raise NotImplementedError(f"this version has other tables: {error}") from error

    def track_seconds(self, task, volumes):
        return self.outcomes[0].figure

    track_seconds.unit = "s"

    def track_table_reads(self, task, volumes):
        return self.outcomes[1].figure

    track_table_reads.unit = "reads"
