"""Published datasets by name: downloaded, verified, and extracted to one folder per scene."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from lumifield.download.archives import BadArchive, extract_archive, extract_nested_archives, extraction_budget
from lumifield.download.datasets import DATASETS, DatasetArchive, PublishedDataset
from lumifield.download.resumable_download import RetryPolicy, discard_partial, download_file
from lumifield.errors import DataError
from lumifield.runtime.files import writing
from lumifield.runtime.folders import fresh_folder

Progress = Callable[[str, int, int | None], None]
log = logging.getLogger(__name__)

DEFAULT_RETRY = RetryPolicy()


def list_datasets() -> list[str]:
    """Lines that describe each dataset: its title, its terms, and its scenes."""
    lines = []
    for dataset in DATASETS:
        needs_browser = dataset.multiscale_of is None and all(archive.url is None for archive in dataset.archives)
        lines += [
            f"{dataset.name}: {dataset.title}" + (" (needs a browser)" if needs_browser else ""),
            f"    {dataset.terms}; {dataset.page}",
            f"    scenes: {', '.join(list_scenes(dataset))}",
        ]
    return lines


def find_dataset(name: str) -> PublishedDataset:
    """The dataset of that name; raises `DataError` for an unknown name and suggests the closest."""
    names = [dataset.name for dataset in DATASETS]
    return DATASETS[names.index(_validate_name("dataset", name, names))]


def list_scenes(dataset: PublishedDataset) -> tuple[str, ...]:
    """The names of the scenes of a dataset."""
    if dataset.multiscale_of is not None:
        return list_scenes(find_dataset(dataset.multiscale_of))
    return tuple(scene for archive in dataset.archives for scene in archive.scenes)


def download_dataset(
    name: str,
    out: Path,
    scenes: tuple[str, ...] = (),
    *,
    retry: RetryPolicy = DEFAULT_RETRY,
    progress: Progress,
) -> tuple[Path, ...]:
    """Downloads a dataset, or only some of its `scenes`, to one folder per scene below `out`; returns the folders.

    Existing scenes are kept, and an interrupted download is resumed by the next call. Raises `DataError` for unknown
    names, if the dataset is not available, damaged or unsafe, and if `out` is not writable.
    """
    dataset = find_dataset(name)
    known = list_scenes(dataset)
    requested = tuple(dict.fromkeys(_validate_name("scene", scene, known) for scene in scenes)) or known
    missing = tuple(scene for scene in requested if not _is_filled(out / scene))
    for scene in requested:
        if scene not in missing:
            log.info("%s exists already", out / scene)
    if missing:
        log.info("%s: %s (%s)", dataset.title, dataset.terms, dataset.page)
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
    if dataset.multiscale_of is not None and missing:
        blender_folder = out / dataset.multiscale_of
        existing = [blender_folder / scene for scene in missing if _is_filled(blender_folder / scene)]
        folders = download_dataset(dataset.multiscale_of, blender_folder, missing, retry=retry, progress=progress)
        _write_multiscale_scenes(folders, out, existing)
    for archive in dataset.archives:
        needed = tuple(scene for scene in archive.scenes if scene in missing)
        if needed:
            _obtain_scenes(dataset, archive, out, needed, retry, progress)
    return tuple(out / scene for scene in requested)


def _validate_name(kind: str, name: str, known: tuple[str, ...] | list[str]) -> str:
    if name in known:
        return name
    matches = get_close_matches(name.lower(), [word.lower() for word in known], 1, 0.5)
    closest = next((word for word in known if matches and word.lower() == matches[0]), None)
    fix = f"use {closest!r}" if closest else "use one of these"
    raise DataError("download", kind, repr(name), f"one of {', '.join(known)}", fix)


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _write_multiscale_scenes(folders: tuple[Path, ...], out: Path, existing: list[Path]) -> None:
    """Writes the multiscale version of each Blender scene, then removes the scene unless it existed before."""
    # Imported here because it loads an image library that no other download needs.
    from lumifield.synthetic.multiscale import write_multiscale_scene

    for folder in folders:
        log.info("%s: writing the multiscale images", out / folder.name)
        write_multiscale_scene(folder, out / folder.name)
        if folder not in existing:
            with writing(out):
                shutil.rmtree(folder)
    blender_folder = folders[0].parent
    if not any(blender_folder.iterdir()):
        blender_folder.rmdir()


def _obtain_scenes(
    dataset: PublishedDataset,
    archive: DatasetArchive,
    out: Path,
    scenes: tuple[str, ...],
    retry: RetryPolicy,
    progress: Progress,
) -> None:
    """Extracts an archive that the user saved below `out`, which is kept, or downloads it and removes it afterwards."""
    saved = out / archive.file
    manual_fix = f"open {dataset.page} in a browser, save {archive.file} as {saved}, and run the command again"
    if saved.is_file():
        _verify_checksum(saved, archive.sha256)
        _extract_scenes(saved, archive, out, scenes)
        return
    if archive.url is None:
        raise DataError(dataset.page, dataset.name, "a download for browsers only", "a file", manual_fix)
    part = out / f"{archive.file}.part"
    download_file(archive.url, part, manual_fix, retry, lambda done, total: progress(archive.file, done, total))
    try:
        _verify_checksum(part, archive.sha256)
        _extract_scenes(part, archive, out, scenes)
    except BadArchive as error:
        discard_partial(part)
        fix = f"run the command again, or {manual_fix}"
        raise DataError(archive.url, error.field, error.found, error.expected, fix) from error
    discard_partial(part)


def _verify_checksum(file: Path, sha256: str | None) -> None:
    """Compares the checksum; without a published one, only the length and the checksums in the archive are verified."""
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        found, fix = f"an unreadable file ({error.strerror})", "check its permissions and its disk"
        raise DataError(file, "file", found, "a readable file", fix) from error
    if sha256 is None:
        log.info("%s: sha256 %s (no published checksum to compare with)", file.name, found)
    elif found != sha256:
        raise BadArchive(file, "sha256", found, sha256, "download it again")


def _extract_scenes(file: Path, archive: DatasetArchive, out: Path, scenes: tuple[str, ...]) -> None:
    """Extracts these scenes of an archive to their folders: all of them or none."""
    with ExitStack() as stack:
        folders = {scene: stack.enter_context(fresh_folder(out / scene)) for scene in scenes}
        budget = extraction_budget(file)
        extract_archive(file, lambda path: _entry_destination(path, archive.scenes, folders), budget)
        for scene, folder in folders.items():
            extract_nested_archives(folder, budget)
            if not _is_filled(folder):
                raise BadArchive(file, "content", f"no {scene}", "every scene of the dataset", "download it again")


def _entry_destination(path: PurePosixPath, scenes: tuple[str, ...], folders: dict[str, Path]) -> Path | None:
    """The path below the first folder named like a scene; an archive of a single scene may lack that folder."""
    if path.parts[:1] == ("__MACOSX",):
        return None
    scene = next((part for part in path.parts if part in scenes), None)
    if scene is not None:
        return folders[scene].joinpath(*path.parts[path.parts.index(scene) + 1 :]) if scene in folders else None
    return folders[scenes[0]] / path if len(scenes) == 1 else None
