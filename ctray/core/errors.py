"""Errors that a user can act on.

Every message names the problem, the values and the remedy. The command line prints the
message as one line and exits with ``exit_code``; the traceback shows with ``--debug`` only.
"""


class CtrayError(Exception):
    """Base of every error that a user can cause or resolve."""

    exit_code = 1


class ConfigError(CtrayError):
    """A configuration that cannot be used: unknown key, value out of range, unreadable file."""

    exit_code = 2


class GeometryError(CtrayError):
    """A box, shape or voxel size that contradicts itself or its volume."""


class StorageError(CtrayError):
    """A store that failed: connection, time-out, server error."""


class StoreUnavailableError(StorageError):
    """A store that does not answer, or answers with its own errors: a later try may succeed."""


class OutageError(StoreUnavailableError):
    """A store that stayed away for longer than the patience: nothing can be read or written."""


class NotFoundError(StorageError):
    """A URL without an object or folder."""


class AccessError(StorageError):
    """Keys that are missing, wrong, or lack a permission."""


class KeysError(AccessError):
    """Keys that the store refuses for every request: wrong or expired."""


class DiskFullError(StorageError):
    """No space left for an output."""


class OutputExistsError(StorageError):
    """An output that already exists; ctray never overwrites."""


class RunInUseError(CtrayError):
    """A run folder that another process writes into."""


class InvalidVolumeError(CtrayError):
    """Data that is no usable volume: unreadable, wrong dimensions, empty, constant.

    Attributes
    ----------
    voxels_ids, part_ids
        Which stored voxels the data hold, and take from other files, as far as that is known;
        see `ctray.archive.inspection`.
    """

    voxels_ids: tuple[str, ...] = ()
    part_ids: tuple[str, ...] = ()


class NoVolumeError(InvalidVolumeError):
    """Sound data without a volume, such as one 2D image."""


class NotReconstructedError(NoVolumeError):
    """A raw scan: projections without a reconstructed volume."""


class CheckpointError(CtrayError):
    """A checkpoint that is missing, damaged, or does not fit its use."""


class TrainingError(CtrayError):
    """Training that cannot continue: a loss that is not finite, or no data."""


class RayStartError(CtrayError):
    """A Ray session of this machine that does not start."""


class JobError(CtrayError):
    """A job on a cluster that cannot be submitted, failed or was stopped, or its cluster."""


class PartialFailureError(CtrayError):
    """A run that finished, but in which some volumes failed."""

    exit_code = 3


def one_line(error: BaseException) -> str:
    """Message of an error, without line breaks."""
    return " ".join(str(error).split())


def printable(text: object, keep: str = "") -> str:
    r"""Return text that is safe to print on a terminal.

    Names in an archive are untrusted. Escape sequences in them can move the cursor, set the title
    of the terminal or write to its clipboard. Control characters for the direction of writing
    disguise a name. All of these become visible: ``\x1b``, ``\u202e``.

    Parameters
    ----------
    text
        Text to show.
    keep
        Characters to keep although they are not printable, such as a line break.
    """
    raw = str(text)
    if raw.isprintable():
        return raw
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in raw
    )
