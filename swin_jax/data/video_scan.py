"""Finds the files of a video data set that training would have to replace, before it starts.

    python -m swin_jax.data.video_scan --annotations=kinetics400_train_list.txt --data_prefix=data/kinetics400/train
    python -m swin_jax.data.video_scan --folder=data/hmdb51 --write_good=hmdb51_good.txt

Every file is decoded from beginning to end: missing, cut off, empty, audio only, damaged, frames of changing size, a
number of frames that differs from what the packets tell. A variable frame rate is named and counts as good, because
frames are taken by number. Findings go line by line to a report beside the list (*.scan.jsonl); a second run takes from
there what it already knows of unchanged files, so an interrupted scan goes on. Exit status 1 where any file will fail.
"""

import argparse
import collections
import json
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tqdm

from swin_jax.data.video_decode import Reader
from swin_jax.data.video_sources import VideoFileSource, video_folder, video_list
from swin_jax.errors import UnreadableError, UserError

_SHOWN = 20  # failing files that the summary names; the report has all
_BATCH = 256  # files that are handed to the threads together


def check_file(path: str, quick: bool = False) -> dict[str, Any]:
    """Looks for what is wrong with a video file.

    Args:
      path: of the file.
      quick: reads packets only, which misses damaged pictures and takes a hundredth of the time.

    Returns:
      {'path', 'bytes', 'changed' (its time), 'quick', 'frames', 'variable_frame_rate', 'problem' ('' if good)}.
    """
    finding = {"path": path, **_state(path), "quick": quick, "frames": 0, "variable_frame_rate": False, "problem": ""}
    try:
        with Reader(path) as reader:
            finding["frames"] = len(reader)
            finding["variable_frame_rate"] = reader.variable_frame_rate
            decoded = len(reader) if quick else reader.count_by_decoding()
    except UnreadableError as error:
        return {**finding, "problem": str(error)}
    if decoded != finding["frames"]:
        finding["problem"] = f"damaged: of {finding['frames']} frames {decoded} can be decoded"
    return finding


def scan(source: VideoFileSource, report: str, quick: bool = False, num_threads: int = 0) -> list[dict[str, Any]]:
    """Checks every file of a source, with a progress bar.

    Args:
      source: the data set.
      report: path of the JSON lines to which findings are added, and from which known ones are taken.
      quick: see check_file.
      num_threads: decoding threads; 0 for one a core.

    Returns:
      The findings of check_file, one for each record. Raises UserError where the report cannot be written.
    """
    paths = [source.record_name(index) for index in range(len(source))]
    try:
        known = {finding["path"]: finding for finding in _known(report, quick)}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{report} is not the report of a scan: remove it, or give --report=FILE") from error
    known = {path: known[path] for path in dict.fromkeys(paths) if path in known}
    todo = [path for path in dict.fromkeys(paths) if path not in known]
    try:
        with open(report, "a", encoding="utf-8") as file, ThreadPoolExecutor(num_threads or os.cpu_count()) as pool:
            for finding in _with_bar(_check_all(pool, todo, quick), list(known.values()), len(todo)):
                known[finding["path"]] = finding
                file.write(json.dumps(finding) + "\n")
                file.flush()
    except OSError as error:
        raise UserError(f"cannot write the report {report} ({error.strerror}): give --report=FILE") from error
    return [known[path] for path in paths]


def summary(findings: list[dict[str, Any]], report: str) -> str:
    """What was found, for people."""
    failing = [finding for finding in findings if finding["problem"]]
    variable = sum(finding["variable_frame_rate"] for finding in findings)
    lines = [f"{finding['path']}: {finding['problem']}" for finding in failing[:_SHOWN]]
    if len(failing) > _SHOWN:
        lines.append(f"... and {len(failing) - _SHOWN} more, see {report}")
    kinds = collections.Counter(finding["problem"].split(":")[0] for finding in failing)
    lines += [f"{count:8} {kind}" for kind, count in kinds.most_common()]
    lines.append(
        f"{len(findings)} records: {len(findings) - len(failing)} good, {len(failing)} will fail, "
        f"{variable} have a variable frame rate"
    )
    return "\n".join(lines)


def write_good(source: VideoFileSource, findings: list[dict[str, Any]], path: str) -> None:
    """Writes an annotation list of the good files, as JSON where `path` ends in .json; UserError where it cannot."""
    good = [index for index, finding in enumerate(findings) if not finding["problem"]]
    if path.endswith(".json"):
        entries = [{"filename": source.paths[index], "label": [source.labels[index]]} for index in good]
        text = json.dumps(entries, indent=0)
    else:
        spaced = next((source.paths[index] for index in good if len(source.paths[index].split()) > 1), None)
        if spaced:
            raise UserError(f"{spaced!r} has spaces, which a text list cannot hold: give --write_good=FILE.json", 2)
        text = "".join(f"{source.paths[index]} {source.labels[index]}\n" for index in good)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def run(arguments: list[str]) -> int:
    """The command line: prints the summary and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--annotations", help="annotation list, text or .json")
    where.add_argument("--folder", help="folder with one sub-folder for each class")
    parser.add_argument("--data_prefix", default="", help="folder in front of the paths of --annotations")
    parser.add_argument("--report", help="JSON lines of findings (default: beside the list or folder)")
    parser.add_argument("--write_good", metavar="FILE", help="writes a list without the files that will fail")
    parser.add_argument("--quick", action="store_true", help="reads packets only; misses damaged pictures")
    parser.add_argument("--num_threads", type=int, default=0, help="decoding threads (default: one a core)")
    flags = parser.parse_args(arguments)
    try:
        source = video_folder(flags.folder) if flags.folder else video_list(flags.annotations, flags.data_prefix)
        report = flags.report or f"{(flags.folder or flags.annotations).rstrip('/')}.scan.jsonl"
        findings = scan(source, report, flags.quick, flags.num_threads)
        print(summary(findings, report))
        if flags.write_good:
            write_good(source, findings, flags.write_good)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("\ninterrupted: run the command again to go on", file=sys.stderr)
        return 130
    return int(any(finding["problem"] for finding in findings))


def _check_all(pool: ThreadPoolExecutor, paths: list[str], quick: bool) -> Iterator[dict[str, Any]]:
    for start in range(0, len(paths), _BATCH):
        yield from pool.map(lambda path: check_file(path, quick), paths[start : start + _BATCH])


def _with_bar(findings: Iterable, known: list, num_new: int) -> Iterator[dict[str, Any]]:
    """Passes findings on; a bar shows how many are done and how many will fail."""
    failing = sum(bool(finding["problem"]) for finding in known)
    with tqdm.tqdm(total=len(known) + num_new, initial=len(known), unit="file", desc="scan") as bar:
        for finding in findings:
            failing += bool(finding["problem"])
            bar.set_postfix(failing=failing, refresh=False)
            bar.update()
            yield finding


def _known(report: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Findings of an earlier run about files that have not changed since; cuts off a line that it did not finish."""
    if not os.path.isfile(report):
        return
    with open(report, "rb+") as file:
        *lines, torn = file.read().split(b"\n")
        for finding in map(json.loads, lines):
            state = {"bytes": finding["bytes"], "changed": finding["changed"]}
            if (quick or not finding["quick"]) and state == _state(finding["path"]):
                yield finding
        start = b'{"path"'
        if torn and torn[: len(start)] != start[: len(torn)]:
            raise ValueError("not a line of this program")
        file.truncate(file.tell() - len(torn))


def _state(path: str) -> dict[str, Any]:
    """By what a changed file is known."""
    try:
        status = os.stat(path)
    except OSError:
        return {"bytes": -1, "changed": 0}
    return {"bytes": status.st_size, "changed": status.st_mtime_ns}


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
