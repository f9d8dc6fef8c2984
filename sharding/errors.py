"""The one error type for what a user can mend."""


class InputError(ValueError):
    """What the user handed in cannot work. The commands print it as one line and exit with code 2."""
