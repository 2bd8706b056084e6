"""The one exception that stands for bad input."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the thing, the bound and the cure. The command line prints it on
    stderr and exits with status 2; anything else that escapes is a bug and keeps its traceback.
    """
