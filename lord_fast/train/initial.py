"""The initial values of stage 1, where they are not those of the seed."""

from lord_fast.train.content_start import start_content
from lord_fast.train.latent import LatentStage
from lord_fast.train.warm_start import start_from


def initialize(stage: LatentStage) -> list[str]:
    """Set the initial values of a new stage as `--init-from` and `--content-init` say.

    Args:
        stage: The stage before its first step.

    Returns:
        Lines that say what was done.

    Raises:
        ValueError: See `start_from`.
    """
    config = stage.config
    found = [] if config.init_from is None else [start_from(stage, config.init_from)]
    # The generator of another run has learnt contents already, and their codes are others.
    if config.init_from is None and config.model.content_init == "statistics":
        found.append(start_content(stage))
    return found
