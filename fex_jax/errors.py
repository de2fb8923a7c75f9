"""What commands say in a line: importing it imports nothing else."""


class HostError(RuntimeError):
    """A black box that cannot be asked, or whose answer cannot be used; says why in a sentence."""
