"""Finds the labels that do not fit their images or classes, and the files that cannot be read.

    python -m swin_jax.data.segmentation.scan --folder=data/street
    python -m swin_jax.data.segmentation.scan --folder=data/street --split=val --label_suffix=_mask
    python -m swin_jax.data.segmentation.scan --folder=data/ADEChallengeData2016 --ade20k

Every image of the splits (`--split`; without it those of train and val that are there) is decoded
wholly, and so is its label: missing, of another size, with numbers beyond the classes, in color, or
damaged. A training run does the same when it starts, but takes only the sizes of images; it refuses
labels that do not fit, and replaces files that are damaged.

Findings go line by line to a report, `--report` or, for 1,000 labels and more, that of the training
run in the cache ($SWIN_JAX_CACHE). A second scan, and the run, take from there what is known of
unchanged files, so an interrupted scan resumes. Exit status: 0 where all is good, 1 where anything
is not or where the scan failed, 2 for a wrong flag or images without labels, 130 after an
interruption.
"""

import argparse
import collections
import contextlib
import functools
import os
import sys

from swin_jax.core.errors import UserError, plain_warnings
from swin_jax.core.output.streams import lasting_output
from swin_jax.core.output.text import shown
from swin_jax.data import file_scan
from swin_jax.data.file_scan import Finding
from swin_jax.data.image import picture
from swin_jax.data.segmentation import checking
from swin_jax.data.segmentation.ade20k import FOLDER, ade20k
from swin_jax.data.segmentation.folder import IMAGES, find_split, label_folder
from swin_jax.data.segmentation.source import LabeledFiles

_SHOWN = 20  # files that the summary names; the report has all
_USUAL_SPLITS = ("train", "val")


def summary(findings: list[Finding], report: str) -> str:
    """A summary of the findings, for people."""
    failing = [finding for finding in findings if finding["problem"]]
    lines = [shown(f"{finding['path']}: {finding['problem']}") for finding in failing[:_SHOWN]]
    if len(failing) > _SHOWN:
        lines.append(f"... and {len(failing) - _SHOWN} more, see {report}")
    unfit = sum(finding["unfit"] for finding in failing)
    lines.append(
        f"{len(findings)} labels: {len(findings) - len(failing)} good, {unfit} that do not fit, "
        f"{len(failing) - unfit} unreadable"
    )
    about = (checking.describe_palettes(findings), checking.describe_turned(findings))
    lines.extend(filter(None, about))
    return "\n".join(lines)


def class_lines(findings: list[Finding], source: LabeledFiles) -> str:
    """A line for each class: in how many images it is."""
    counts = collections.Counter(value for finding in findings for value in finding["values"])
    start = int(source.reduce_zero_label)
    return "\n".join(
        f"{counts[number]:8} {number:4} {shown(name)}"
        for number, name in enumerate(source.class_names, start)
    )


def run(arguments: list[str]) -> int:
    """The command line: prints a summary of each split.

    Returns:
        The exit status, see `file_scan.exit_status`.
    """
    flags = _parser().parse_args(arguments)
    return file_scan.exit_status(functools.partial(_scan, flags))


def _scan(flags: argparse.Namespace) -> bool:
    """Scans and prints the summaries; True where all is good."""
    if not flags.folder:
        raise UserError("--folder= is empty; give it a folder of images and labels")
    if flags.num_threads < 1:
        raise UserError(f"--num_threads={flags.num_threads} must be at least 1")
    root, good = os.path.expanduser(flags.folder), True
    if flags.ade20k and os.path.isdir(os.path.join(root, FOLDER)):
        root = os.path.join(root, FOLDER)
    for split in _splits(root, flags.split):
        source = _source(flags, root, split)
        place = os.path.join(root, find_split(root, split)[1])
        with contextlib.ExitStack() as stack:
            report = flags.report or stack.enter_context(checking.report_of(source, place))
            findings = checking.scan(source, report, True, flags.num_threads)
        file_scan.show(f"{split}: images of each class, by its number\n")
        file_scan.show(class_lines(findings, source))
        file_scan.show(summary(findings, report))
        if unlabeled := checking.describe_unlabeled(findings, source):
            file_scan.show(unlabeled)
        good = good and not unlabeled and not any(finding["problem"] for finding in findings)
    return good


def _splits(root: str, split: str) -> list[str]:
    """The splits to scan."""
    if split:
        return [split]
    found = []
    for name in _USUAL_SPLITS:
        with contextlib.suppress(UserError):
            find_split(root, name)
            found.append(name)
    if not found:
        find_split(root, _USUAL_SPLITS[0])
    return found


def _source(flags: argparse.Namespace, root: str, split: str) -> LabeledFiles:
    if not flags.ade20k:
        names = ("class_names", "reduce_zero_label", "image_suffix", "label_suffix", "conversion")
        arguments = {name: getattr(flags, name) for name in names}
        return label_folder(root, split, **arguments, check=False)
    if flags.class_names or flags.image_suffix or flags.label_suffix:
        raise UserError(
            "--ade20k has its own class list and names of files: leave out --class_names, "
            "--image_suffix and --label_suffix"
        )
    return ade20k(root, split, check=False)


def _parser() -> argparse.ArgumentParser:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", required=True, help=f"folder with {IMAGES}/ and labels/ or annotations/")
    add("--split", default="", help="one split (default: train and val, where they are there)")
    add("--ade20k", action="store_true", help=f"the folder is {FOLDER}, or around it")
    add("--class_names", default="", help="list of classes (default: classes.txt in the folder)")
    add(
        "--reduce_zero_label",
        action="store_true",
        help="classes count from 1, and 0 is everything else",
    )
    add("--image_suffix", default="", help="end of the names of images that labels lack")
    add("--label_suffix", default="", help="end of the names of labels that images lack")
    add(
        "--conversion",
        default="display",
        choices=picture.CONVERSIONS,
        help="how images become pixels (default: display)",
    )
    add("--report", type=os.path.expanduser, help="JSON lines of findings (default: in the cache)")
    add(
        "--num_threads",
        type=int,
        default=os.cpu_count(),
        help="decoding threads (default: one per core)",
    )
    return parser


if __name__ == "__main__":
    with lasting_output(), plain_warnings():
        sys.exit(run(sys.argv[1:]))
