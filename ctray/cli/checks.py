"""What is looked at before a run begins, so that a slip costs seconds and not hours."""

from __future__ import annotations

from ctray.errors import NotFoundError, OutputExistsError
from ctray.storage import store
from ctray.storage.run_folder import RunFolder


def check_output(archive_url: str, out_url: str) -> None:
    """Refuse an output that would harm the archive or what lies there already.

    Raises
    ------
    NotFoundError
        If nothing is at `archive_url`.
    OutputExistsError
        If `out_url` is the archive, lies in it, or is a folder with something else in it.
    """
    archive, out = store.normalize(archive_url), store.normalize(out_url)
    # A pattern such as scan_*.tif names files of a folder.
    if "*" not in archive.rpartition("/")[2] and not store.exists(archive):
        raise NotFoundError(f"{archive_url}: nothing is there; give a folder with volumes")
    if out == archive or out.startswith(f"{archive}/"):
        raise OutputExistsError(
            f"--out {out_url} lies in the archive {archive_url}, where the next run would take "
            "its crops for volumes; give a folder outside"
        )
    if store.exists(RunFolder(url=out).manifest) or not store.exists(out):
        return
    try:
        found = store.list_dir(out)
    except NotADirectoryError:
        found = []
    if found:
        raise OutputExistsError(
            f"--out {out_url} exists and is no run (it holds {found[0].name} and no run.json); "
            "give a new or empty folder"
        )
