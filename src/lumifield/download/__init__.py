"""Published data sets by name: downloaded, checked, unpacked, a folder a scene."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from lumifield.download.archives import BadArchive, budget, unpack_archive, unpack_nested_archives
from lumifield.download.datasets import DATASETS, DatasetArchive, PublishedDataset
from lumifield.download.resumable_download import RetryPolicy, discard_partial, download_file
from lumifield.errors import DataError
from lumifield.runtime.files import writing
from lumifield.runtime.folders import fresh_folder

Progress = Callable[[str, int, int | None], None]
log = logging.getLogger(__name__)


def listing() -> list[str]:
    """A line for each set, one for its terms and one for its scenes."""
    lines = []
    for chosen in DATASETS:
        by_hand = chosen.pyramids_of is None and all(archive.url is None for archive in chosen.archives)
        lines += [
            f"{chosen.name}: {chosen.title}" + (" (needs a browser)" if by_hand else ""),
            f"    {chosen.terms}; {chosen.page}",
            f"    scenes: {', '.join(scenes_of(chosen))}",
        ]
    return lines


def named(name: str) -> PublishedDataset:
    """The set of that name; raises `DataError` where there is none, and offers the closest."""
    return {chosen.name: chosen for chosen in DATASETS}[_known("set", name, [chosen.name for chosen in DATASETS])]


def scenes_of(chosen: PublishedDataset) -> tuple[str, ...]:
    """The names of a set's scenes."""
    if chosen.pyramids_of is not None:
        return scenes_of(named(chosen.pyramids_of))
    return tuple(scene for archive in chosen.archives for scene in archive.scenes)


def download(
    name: str, out: Path, scenes: tuple[str, ...] = (), *, patience: RetryPolicy | None = None, progress: Progress
) -> tuple[Path, ...]:
    """Makes a folder below `out` for each scene of the set (of `scenes` alone, if given) and returns them.

    Scenes that are there already stay as they are. An interrupted download goes on with the next call. Raises
    `DataError` for unknown names, where the set cannot be had, is damaged or unsafe, or cannot be written.
    """
    chosen = named(name)
    known = scenes_of(chosen)
    wanted = tuple(dict.fromkeys(_known("scene", scene, known) for scene in scenes)) or known
    missing = tuple(scene for scene in wanted if not _there(out / scene))
    for scene in wanted:
        if scene not in missing:
            log.info("%s is there already", out / scene)
    if missing:
        log.info("%s: %s (%s)", chosen.title, chosen.terms, chosen.page)
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
    if chosen.pyramids_of is not None:
        _pyramids(chosen.pyramids_of, out, missing, patience, progress)
    for archive in chosen.archives:
        needed = tuple(scene for scene in archive.scenes if scene in missing)
        if needed:
            _obtain(chosen, archive, out, needed, patience or RetryPolicy(), progress)
    return tuple(out / scene for scene in wanted)


def _known(kind: str, name: str, known: tuple[str, ...] | list[str]) -> str:
    if name in known:
        return name
    close = get_close_matches(name.lower(), [word.lower() for word in known], 1, 0.5)
    nearest = next((word for word in known if close and word.lower() == close[0]), None)
    fix = f"take {nearest!r}" if nearest else "take one of these"
    raise DataError("download", f"the {kind}", repr(name), f"one of {', '.join(known)}", fix)


def _there(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _pyramids(
    source: str, out: Path, scenes: tuple[str, ...], patience: RetryPolicy | None, progress: Progress
) -> None:
    """Downloads Blender scenes beside the pyramids that are made of them; they go then, but those found there stay."""
    # Here, because it imports an image library that no other download needs.
    from lumifield.synthetic.multiscale import write_multiscale

    beside = out / source
    found = [beside / scene for scene in scenes if _there(beside / scene)]
    blender = download(source, beside, scenes, patience=patience, progress=progress) if scenes else ()
    for folder in blender:
        log.info("%s: making the pyramid", out / folder.name)
        write_multiscale(folder, out / folder.name)
        if folder not in found:
            with writing(out):
                shutil.rmtree(folder)
    if beside.is_dir() and not any(beside.iterdir()):
        beside.rmdir()


def _obtain(
    chosen: PublishedDataset,
    archive: DatasetArchive,
    out: Path,
    scenes: tuple[str, ...],
    patience: RetryPolicy,
    progress: Progress,
) -> None:
    """Unpacks an archive that somebody has placed below `out`, which stays, or one that is downloaded, which goes."""
    placed = out / archive.file
    by_hand = f"open {chosen.page} in a browser, save {archive.file} as {placed}, and run the command again"
    if placed.is_file():
        _checked(placed, archive.sha256)
        _scenes(placed, archive, out, scenes)
        return
    if archive.url is None:
        raise DataError(chosen.page, chosen.name, "to be had with a browser alone", "a file", by_hand)
    part = out / f"{archive.file}.part"
    download_file(archive.url, part, by_hand, patience, lambda done, total: progress(archive.file, done, total))
    try:
        _checked(part, archive.sha256)
        _scenes(part, archive, out, scenes)
    except BadArchive as error:
        discard_partial(part)
        raise DataError(archive.url, error.field, error.found, error.expected, f"run it again, or {by_hand}") from error
    discard_partial(part)


def _checked(file: Path, sha256: str | None) -> None:
    """Compares the checksum; where none is published the length and the sums within the archive have to do."""
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        fix = "check its permissions and its disk"
        raise DataError(file, "the file", f"unreadable ({error.strerror})", "a readable file", fix) from error
    if sha256 is None:
        log.info("%s: sha256 %s; none is published, so its length and its inner sums are checked", file.name, found)
    elif found != sha256:
        raise BadArchive(file, "the sha256", found, sha256, "get it again")


def _scenes(file: Path, archive: DatasetArchive, out: Path, scenes: tuple[str, ...]) -> None:
    """Makes the folders of these scenes from an archive; all of them or none."""
    with ExitStack() as stack:
        folders = {scene: stack.enter_context(fresh_folder(out / scene)) for scene in scenes}
        left = budget(file)
        unpack_archive(file, lambda path: _place(path, archive.scenes, folders), left)
        for scene, folder in folders.items():
            unpack_nested_archives(folder, left)
            if not _there(folder):
                raise BadArchive(file, "the content", f"without {scene}", "every scene of the set", "get it again")


def _place(path: PurePosixPath, scenes: tuple[str, ...], folders: dict[str, Path]) -> Path | None:
    """Below the first folder that bears the name of a scene; what stands beside it goes along with a single scene."""
    if path.parts[:1] == ("__MACOSX",):
        return None
    scene = next((part for part in path.parts if part in scenes), None)
    if scene is not None:
        return folders[scene].joinpath(*path.parts[path.parts.index(scene) + 1 :]) if scene in folders else None
    return folders[scenes[0]] / path if len(scenes) == 1 else None
