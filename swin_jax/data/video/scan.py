"""Finds the files of a video data set that training would have to replace, before it starts.

    python -m swin_jax.data.video.scan --annotations=kinetics400_train_list.txt \
        --data_prefix=data/kinetics400/train
    python -m swin_jax.data.video.scan --folder=data/hmdb51 --write_good=hmdb51_good.txt

Every file is decoded from beginning to end: missing, cut off, empty, audio only, damaged, frames of
changing size, a number of frames that differs from what the packets tell, and damage that FFmpeg
does not notice but that makes a frame another one when it is read by itself. To see that, files
that are read by seeking are decoded twice, the second time from every key frame to the next and
backwards, and compared, which takes three times as long as one decode. What it cannot see is damage
that gives the same wrong pictures both times: most of it gives them always, as nothing tells them
from a film; some shows what a decoder had before, and would differ in a third order.

Files with a variable frame rate are named, too: training replaces them, because clips count frames
and their motion changes speed; evaluation and prediction read them exactly, by time stamps, as
training does with variable_frame_rate=true, and --variable_frame_rate takes them for good. Files of
one frame only, such as pictures, are named and good.

Findings go line by line to a report beside the list (*.scan.jsonl); a second run takes from there
what it already knows of unchanged files, so an interrupted scan resumes. Exit status: 0 where all
files are good, 1 where training would replace any or where the scan failed, 2 for a wrong flag,
130 after an interruption.
"""

import argparse
import collections
import csv
import functools
import io
import json
import os
import sys
from typing import Any

from swin_jax.core.errors import UnreadableError, UserError, plain_warnings
from swin_jax.core.output.streams import lasting_output
from swin_jax.core.output.text import shown
from swin_jax.data import file_scan
from swin_jax.data.labels import has_several
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.published import labels_beside
from swin_jax.data.video.sources import VideoFileSource, flat_video_folder, video_folder, video_list

_SHOWN = 20  # files of a kind that the summary names; the report has all


def check_file(path: str, quick: bool = False) -> dict[str, Any]:
    """Looks for what is wrong with a video file.

    Args:
        path: Path of the file.
        quick: True to read packets only, which misses damaged pictures and takes less than a
            hundredth of the time.

    Returns:
        {'path', 'bytes', 'changed' (its time), 'quick', 'frames', 'variable_frame_rate',
        'problem' ('' if good)}.
    """
    finding = {
        **file_scan.begin(path),
        "quick": quick,
        "frames": 0,
        "variable_frame_rate": False,
        "problem": "",
    }
    try:
        with Reader(path) as reader:
            finding["frames"] = len(reader)
            finding["variable_frame_rate"] = reader.variable_frame_rate
            decoded = len(reader) if quick else reader.count_by_decoding()
    except UnreadableError as error:
        return finding | file_scan.problem(path, error)
    if decoded != finding["frames"]:
        finding["problem"] = f"damaged: of {finding['frames']} frames {decoded} can be decoded"
    return finding


def scan(
    source: VideoFileSource, report: str, quick: bool = False, num_threads: int = 0
) -> list[dict[str, Any]]:
    """Checks every file of a source, with a progress bar.

    Args:
        source: The data set.
        report: Path of the JSON lines to which findings are added,
            and from which known ones are taken.
        quick: The same as in `check_file`.
        num_threads: Decoding threads; 0 for one per core.

    Returns:
        The findings of check_file, one for each record.
        Raises UserError where the report cannot be written.
    """
    paths = [source.record_name(index) for index in range(len(source))]
    return file_scan.scan(
        paths,
        report,
        lambda path: check_file(path, quick),
        lambda finding: quick or not finding["quick"],
        num_threads,
    )


def will_be_replaced(finding: dict[str, Any], variable_frame_rate: bool = False) -> bool:
    """True if training replaces the file of a finding;
    `variable_frame_rate` is the same as in `sources.video_list`.
    """
    return bool(finding["problem"]) or (finding["variable_frame_rate"] and not variable_frame_rate)


def summary(findings: list[dict[str, Any]], report: str, variable_frame_rate: bool = False) -> str:
    """A summary of the findings, for people; see will_be_replaced."""
    failing = [finding for finding in findings if finding["problem"]]
    whole = [finding for finding in findings if not finding["problem"]]
    variable = [finding for finding in whole if finding["variable_frame_rate"]]
    single = [finding for finding in whole if finding["frames"] == 1]
    uneven = (
        "variable frame rate, "
        f"{'read by time stamps' if variable_frame_rate else 'which training replaces'}"
    )
    lines = []
    for found, what in ((failing, ""), (variable, uneven), (single, "one frame only")):
        lines += [
            shown(f"{finding['path']}: {what or finding['problem']}") for finding in found[:_SHOWN]
        ]
        if len(found) > _SHOWN:
            lines.append(f"... and {len(found) - _SHOWN} more, see {report}")
    kinds = collections.Counter(finding["problem"].split(":")[0] for finding in failing)
    kinds += collections.Counter({uneven: len(variable), "one frame only": len(single)})
    lines += [f"{count:8} {kind}" for kind, count in kinds.most_common()]
    replaced = sum(will_be_replaced(finding, variable_frame_rate) for finding in findings)
    lines.append(
        f"{len(findings)} records: {len(findings) - replaced} good, "
        f"{replaced} to be replaced in training"
    )
    return "\n".join(lines)


def write_good(
    source: VideoFileSource, findings: list[dict[str, Any]], path: str, variable_frame_rate: bool
) -> None:
    """Writes an annotation list of the files that are not replaced.

    Where `path` ends in .csv or .jsonl labels are the names of their classes, in others numbers.
    """
    good = [
        index
        for index, finding in enumerate(findings)
        if not will_be_replaced(finding, variable_frame_rate)
    ]
    if path.endswith(".json"):
        entries = [
            {"filename": source.paths[index], "label": [source.labels[index]]} for index in good
        ]
        text = json.dumps(entries, indent=0)
    elif path.endswith(".jsonl"):
        named = [
            {"video": source.paths[index], "label": source.class_names[source.labels[index]]}
            for index in good
        ]
        text = "".join(json.dumps(entry) + "\n" for entry in named)
    elif path.endswith(".csv"):
        rows = io.StringIO()
        named = [(source.paths[index], source.class_names[source.labels[index]]) for index in good]
        csv.writer(rows, lineterminator="\n").writerows([("path", "label"), *named])
        text = rows.getvalue()
    else:
        text = "".join(f"{source.paths[index]} {source.labels[index]}\n" for index in good)
    file_scan.write_list(path, text.encode())


def _check_write_good(source: VideoFileSource, path: str, others: tuple[str, ...]) -> None:
    """Raises UserError where no list of a source can be written to `path`,
    before hours have gone into a scan.
    """
    if not source.class_names:
        raise UserError(
            "--write_good writes a list with labels; the folder has no class folders to take "
            "them from"
        )
    if has_several(source):
        raise UserError(
            "--write_good writes one label for each video, and these have several; "
            "the report names bad ones"
        )
    spaced = next((name for name in source.paths if len(name.split()) > 1), None)
    if spaced and not path.endswith((".csv", ".json", ".jsonl")):
        raise UserError(
            f"{spaced!r} has spaces, which a text list cannot hold: give --write_good=FILE.json"
        )
    strange = next((name for name in source.paths if not _is_utf8(name)), None)
    if strange and not path.endswith((".json", ".jsonl")):
        raise UserError(
            f"{strange!r} is not UTF-8, which this list cannot hold: give --write_good=FILE.json"
        )
    others = (*others, *(source.record_name(index) for index in range(len(source))))
    file_scan.check_writable(path, others, "--write_good")


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


def run(arguments: list[str]) -> int:
    """The command line: prints the summary.

    Returns:
        The exit status: 0 where all files are good, 1 where some will be replaced or the
        disk is full, 2 for a mistake of the user.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--annotations", help="annotation list: text, .csv, .json, .jsonl")
    where.add_argument(
        "--folder", help="folder with one sub-folder for each class, or of videos without classes"
    )
    parser.add_argument(
        "--data_prefix", default="", help="folder in front of the paths of --annotations"
    )
    parser.add_argument(
        "--report",
        type=os.path.expanduser,
        help="JSON lines of findings (default: beside the list or folder)",
    )
    parser.add_argument(
        "--write_good",
        type=os.path.expanduser,
        metavar="FILE",
        help="list (.txt, .csv, .json, .jsonl) without the files that are replaced",
    )
    parser.add_argument(
        "--variable_frame_rate", action="store_true", help="files with one are good"
    )
    parser.add_argument(
        "--quick", action="store_true", help="reads packets only; misses damaged pictures"
    )
    parser.add_argument(
        "--num_threads",
        type=int,
        default=os.cpu_count(),
        help="decoding threads (default: one per core)",
    )
    return file_scan.exit_status(functools.partial(_scan, parser.parse_args(arguments)))


def _scan(flags: argparse.Namespace) -> bool:
    """Scans and prints the summary; True where all files are good."""
    variable, source = flags.variable_frame_rate, _source(flags)
    report = (
        flags.report
        or f"{os.path.expanduser(flags.folder or flags.annotations).rstrip('/')}.scan.jsonl"
    )
    if flags.write_good:
        listed = (flags.annotations, labels_beside(flags.annotations)) if flags.annotations else ()
        _check_write_good(source, flags.write_good, (report, *filter(None, listed)))
    findings = scan(source, report, flags.quick, flags.num_threads)
    file_scan.show(summary(findings, report, variable))
    if flags.write_good:
        write_good(source, findings, flags.write_good, variable)
    return not any(will_be_replaced(finding, variable) for finding in findings)


def _source(flags: argparse.Namespace) -> VideoFileSource:
    """The data set that the command line asks to be scanned."""
    if flags.num_threads < 1:
        raise UserError(f"--num_threads={flags.num_threads} must be at least 1")
    if not flags.annotations and not flags.folder:
        raise UserError("--annotations= or --folder= is empty; give it a file or a folder")
    if flags.annotations:
        return video_list(flags.annotations, flags.data_prefix)
    if flags.data_prefix:
        raise UserError("--data_prefix goes with --annotations; the paths of a --folder are known")
    folder = os.path.expanduser(flags.folder)
    if os.path.isfile(folder):
        raise UserError(
            f"--folder={flags.folder} is a file; a list is given as --annotations={flags.folder}"
        )
    if os.path.isdir(folder):
        if not file_scan.check_splits(folder, flags.folder):
            return flat_video_folder(folder)
    return video_folder(folder)


if __name__ == "__main__":
    with lasting_output(), plain_warnings():
        sys.exit(run(sys.argv[1:]))
