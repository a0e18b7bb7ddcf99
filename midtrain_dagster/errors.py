"""The one exception that people are meant to read."""


class MidtrainError(Exception):
    """Something a user can put right: the message says what is wrong, where, and what to do.

    The command line prints it as one line and exits with 2; an asset fails with it. Anything else that
    is raised is a defect of this project and keeps its traceback.
    """
