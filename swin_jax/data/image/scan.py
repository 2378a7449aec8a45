"""Finds the pictures that cannot be read, before a training or an evaluation does.

    python -m swin_jax.data.image.scan --folder=data/val
    python -m swin_jax.data.image.scan --folder=data --write_unreadable=unreadable.txt
    python -m swin_jax.data.image.scan --annotations=data/val.csv --data_prefix=data/images
    python -m swin_jax.data.image.scan --archive=data/val.zip

Every picture below the folder, at any depth, or of the list or zip archive, is decoded wholly:
missing, cut off, damaged, no picture, beyond the limits (`--max_pixels`, `--max_bytes`,
`--max_scans`), or so narrow that evaluations, which resize the short side, refuse it
(`--short_side`, 0 for those that resize the whole picture). Training replaces and counts such
pictures; an evaluation refuses them, or leaves them out with
`--config.evals.NAME.run.data.unreadable=leave_out`.

Findings go line by line to a report beside what is scanned (*.scan.jsonl); a second run takes
from there what it knows already of unchanged files, so an interrupted scan resumes. Exit status:
0 where all pictures are good, 1 where any is not or where the scan failed, 2 for a wrong flag,
130 after an interruption.
"""

import argparse
import collections
import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from swin_jax.core import storage
from swin_jax.core.errors import UnreadableError, UserError, plain_warnings
from swin_jax.core.output.streams import lasting_output
from swin_jax.core.output.text import shown
from swin_jax.data import file_scan, sources
from swin_jax.data.file_scan import Finding
from swin_jax.data.image import archives, picture
from swin_jax.data.image.picture import Limits
from swin_jax.data.labels import Marked

_SHOWN = 20  # files that the summary names; the report has all


def check_file(
    path: str,
    limits: Limits = picture.USUAL,
    short_side: int = 256,
    read: Callable[[], bytes] | None = None,
) -> Finding:
    """Looks for what is wrong with a picture.

    Args:
        path: Path of the file, or what stands for it.
        limits: Limits on the picture.
        short_side: Size to which evaluations resize the short side, in pixels; 0 does not check
            what becomes of the other.
        read: A function that gives the encoded bytes where `path` is none.

    Returns:
        {'path', 'bytes', 'changed' (its time), 'limits', 'short_side', 'size' ([width, height], []
        if it is not known), 'problem' ('' if good)}.
    """
    asked = dict(limits=dataclasses.asdict(limits), short_side=short_side)
    finding = {**file_scan.begin(path), **asked, "size": [], "problem": ""}
    try:
        image = picture.decode(read() if read else path, limits=limits)
        finding["size"] = list(image.size)
        if short_side:
            scale = short_side / min(image.size)
            picture.check_resized(int(image.width * scale), int(image.height * scale))
    except UnreadableError as error:
        finding |= file_scan.problem(path, error)
    return finding


def scan(
    source: sources.FileSource | archives.ZipSource | Marked,
    report: str,
    limits: Limits = picture.USUAL,
    short_side: int = 256,
    num_threads: int = 0,
) -> list[Finding]:
    """Checks every picture of a source, with a progress bar.

    Args:
        source: The pictures.
        report: Path of the JSON lines to which findings are added,
            and from which known ones are taken.
        limits, short_side: The same as in `check_file`.
        num_threads: Decoding threads; 0 for one per core.

    Returns:
        The findings of check_file, one for each file.
        Raises UserError where the report cannot be written.
    """
    asked: dict[str, Any] = dict(limits=dataclasses.asdict(limits), short_side=short_side)
    source = source.source if isinstance(source, Marked) else source
    reader, stamp = dict.fromkeys(_names(source)), {}
    if isinstance(source, archives.ZipSource):
        read = functools.partial(archives.read_member, source.archive)
        reader = {
            name: functools.partial(read, place) for name, place in zip(reader, source.places)
        }
        status = os.stat(source.archive)
        stamp = {"archive": [status.st_size, storage.changed(status)]}
    return file_scan.scan(
        list(reader),
        report,
        lambda path: check_file(path, limits, short_side, reader[path]) | stamp,
        lambda finding: {name: finding.get(name) for name in asked | stamp} == asked | stamp,
        num_threads,
    )


def summary(findings: list[Finding], report: str) -> str:
    """A summary of the findings, for people."""
    failing = [finding for finding in findings if finding["problem"]]
    lines = [shown(f"{finding['path']}: {finding['problem']}") for finding in failing[:_SHOWN]]
    if len(failing) > _SHOWN:
        lines.append(f"... and {len(failing) - _SHOWN} more, see {report}")
    kinds = collections.Counter(
        finding["problem"].split(":")[0].split(" (")[0] for finding in failing
    )
    lines += [f"{count:8} {kind}" for kind, count in kinds.most_common(_SHOWN)]
    lines.append(
        f"{len(findings)} pictures: {len(findings) - len(failing)} good, {len(failing)} unreadable"
    )
    return "\n".join(lines)


def run(arguments: list[str]) -> int:
    """The command line: prints the summary.

    Returns:
        The exit status: 0 where all pictures are good, 1 where some are not or the disk is
        full, 2 for a mistake of the user.
    """
    flags = _parser().parse_args(arguments)
    return file_scan.exit_status(functools.partial(_scan, flags))


def _scan(flags: argparse.Namespace) -> bool:
    """Scans and prints the summary; True where all pictures are good."""
    for name, least in (("num_threads", 1), ("short_side", 0)):
        if getattr(flags, name) < least:
            raise UserError(f"--{name}={getattr(flags, name)} must be at least {least}")
    limits = Limits(bytes=flags.max_bytes, pixels=flags.max_pixels, scans=flags.max_scans)
    source = _source(flags)
    scanned = flags.folder or flags.annotations or flags.archive
    report = flags.report or f"{os.path.expanduser(scanned).rstrip('/')}.scan.jsonl"
    if flags.write_unreadable:
        lists = (flags.annotations, flags.archive)
        others = (report, *map(os.path.expanduser, filter(None, lists)), *_names(source))
        file_scan.check_writable(flags.write_unreadable, others, "--write_unreadable")
    findings = scan(source, report, limits, flags.short_side, flags.num_threads)
    file_scan.show(summary(findings, report))
    if flags.write_unreadable:
        paths = (_encoded(finding["path"]) + b"\n" for finding in findings if finding["problem"])
        file_scan.write_list(flags.write_unreadable, b"".join(paths))
    return not any(finding["problem"] for finding in findings)


def _parser() -> argparse.ArgumentParser:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--folder", help="folder of pictures, or one picture")
    where.add_argument("--annotations", help="list of pictures: text, .csv, .tsv, .json, .jsonl")
    where.add_argument("--archive", help="zip archive of pictures")
    parser.add_argument(
        "--data_prefix", default="", help="folder in front of the paths of --annotations"
    )
    parser.add_argument(
        "--report",
        type=os.path.expanduser,
        help="JSON lines of findings (default: beside what is scanned)",
    )
    parser.add_argument(
        "--write_unreadable",
        type=os.path.expanduser,
        metavar="FILE",
        help="list of their paths to write, one per line",
    )
    for name in ("pixels", "bytes", "scans"):
        default = getattr(picture.USUAL, name)
        parser.add_argument(
            f"--max_{name}",
            type=int,
            default=default,
            help=f"limit for a picture (default: {default})",
        )
    parser.add_argument(
        "--short_side",
        type=int,
        default=256,
        help="short side of resized pictures; 0 to ignore (default: 256)",
    )
    parser.add_argument(
        "--num_threads",
        type=int,
        default=os.cpu_count(),
        help="decoding threads (default: one per core)",
    )
    return parser


def _source(flags: argparse.Namespace) -> sources.FileSource | archives.ZipSource | Marked:
    """The data set that the command line asks to be scanned."""
    for name in ("folder", "annotations", "archive"):
        if getattr(flags, name) == "":
            raise UserError(f"--{name}= is empty; give it the pictures to be scanned")
    if flags.data_prefix and not flags.annotations:
        raise UserError("--data_prefix goes with --annotations")
    if flags.annotations:
        return sources.image_list(os.path.expanduser(flags.annotations), flags.data_prefix)
    if flags.archive:
        return archives.flat_zip(os.path.expanduser(flags.archive))
    folder = os.path.expanduser(flags.folder)
    if os.path.isfile(folder) and not folder.lower().endswith(picture.suffixes()):
        raise UserError(
            f"--folder={flags.folder} is not a folder: give --annotations= for a list, "
            "--archive= for a .zip"
        )
    return sources.flat_folder(folder)


def _encoded(path: str) -> bytes:
    """The name of a file as the file system has it;
    what cannot be one, as lists may name it, is escaped.
    """
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return path.encode("utf-8", "backslashreplace")


def _names(source: Any) -> list[str]:
    return [source.record_name(index) for index in range(len(source))]


if __name__ == "__main__":
    with lasting_output(), plain_warnings():
        sys.exit(run(sys.argv[1:]))
