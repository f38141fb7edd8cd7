"""What can go wrong in trainer; `mmgen.errors.explain` turns it into one line and an exit code."""


class TrainerError(Exception):
    """Anything trainer refuses or cannot finish; the message is one line a person can act on."""

    exit_code = 1


class InputError(TrainerError):
    """Bad input, seen before work starts: a config, a device, a run folder, a checkpoint."""

    exit_code = 2


class RunError(TrainerError):
    """A run that cannot go on, because its loss is not finite for example."""


class Stopped(TrainerError):
    """A run that somebody ended; its checkpoint is there."""

    exit_code = 130
