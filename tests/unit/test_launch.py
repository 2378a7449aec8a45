"""The command line: what is wrong with it is said in one line, before anything is started or written."""

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from swin_jax import launch as launcher
from swin_jax.core import command_line
from swin_jax.core.config import flatten, load
from swin_jax.core.errors import UserError
from swin_jax.train import multihost

QUICKSTART = "experiments/quickstart.py"
IN1K = "experiments/swin/swin_in1k.py:fake"


@pytest.fixture(autouse=True)
def no_run(monkeypatch):
    """A command line that is good ends here; returns what it would have started."""
    started = []

    def prepare(*arguments):
        return lambda: started.append(arguments) or 0

    monkeypatch.setattr("swin_jax.train.loop.prepare", prepare)
    for action in ("predict.prepare", "search.prepare_index", "search.prepare_search", "editing.action.prepare"):
        monkeypatch.setattr(f"swin_jax.inference.{action}", prepare)
    monkeypatch.setattr("swin_jax.inference.export.prepare_run", prepare)
    return started


@pytest.mark.parametrize(
    "config, flags, message",
    [
        (QUICKSTART, ["--config.batchsize=8"], "unknown flag --config.batchsize; did you mean --config.batch_size?"),
        (QUICKSTART, ["--config.task.model.dropout_path=0"], "did you mean --config.task.model.drop_path_rate?"),
        (QUICKSTART, ["--config.model.embed_dim=8"], "did you mean --config.task.model.embed_dim?"),
        (QUICKSTART, ["--config.seeds.path=8"], "did you mean --config.init_from.path?"),
        (QUICKSTART, ["--wokdir=x"], "unknown flag --wokdir; did you mean --workdir?"),
        (QUICKSTART, ["--config.zzzzzz=1"], "unknown flag --config.zzzzzz"),
        (QUICKSTART, ["--nodebugnans"], "unknown flag --nodebugnans"),
        (QUICKSTART, ["--config.batch_size=many"], "batch_size=many: it must be a whole number, not 'many'"),
        (QUICKSTART, ["--config.batch_size=1.5"], "batch_size"),
        (QUICKSTART, ["--config.task.label_smoothing=x"], "label_smoothing=x: it must be a number, not 'x'"),
        (QUICKSTART, ["--config.task.model.depths=2,x"], "--config.task.model.depths takes ints, not '2,x'"),
        (QUICKSTART, ["--config.task.model.depths=(1.5,2)"], "--config.task.model.depths takes ints, not 1.5"),
        (QUICKSTART, ["--config.task.model.depths="], "--config.task.model.depths takes ints, not ''"),
        (QUICKSTART, ["--config.task.mean=dark"], "--config.task.mean takes floats, not 'dark'"),
        (QUICKSTART, ["--config.task.model.qkv_bias=perhaps"], "qkv_bias"),
        (QUICKSTART, ["--config.task.model=5"], "config.task.model"),
        (QUICKSTART, ["--config.task.fn=5"], "config.task.fn"),
        (QUICKSTART, ["--config.batch_size"], "batch_size"),
        (QUICKSTART, ["--debug_nans=perhaps"], "debug_nans"),
        (QUICKSTART, ["batch_size=8"], "'batch_size=8' is not a flag"),
        (QUICKSTART, ["train"], "'train' is not a flag"),
        (QUICKSTART, ["--profile=10"], "--profile=10 is not of the form a-b"),
        (QUICKSTART, ["--profile=12-10"], "a-b with 1 <= a <= b"),
        (QUICKSTART, ["--profile=0-3"], "a-b with 1 <= a <= b"),
        (QUICKSTART, ["--profile=a-b"], "not of the form"),
        (QUICKSTART, [f"--config={QUICKSTART}"], "give one --config"),
        (QUICKSTART + ":fak", [], "unknown config argument 'fak'; did you mean 'fake'?"),
        (QUICKSTART + ":fake=maybe", [], "neither true nor false"),
        (IN1K, ["--config.batch_size=0"], "--config.batch_size=0: it must be a whole number, at least 1"),
        (IN1K, ["--config.epochs=-1"], "--config.epochs=-1: it must be a whole number, at least 0"),
        (IN1K, ["--config.warmup_epochs=-3"], "--config.warmup_epochs=-3: it must be a number, at least 0"),
        (IN1K, ["--config.base_lr=nan"], "--config.base_lr=nan: it must be a number, at least 0"),
        (IN1K, ["--config.image_size=-32"], "--config.image_size=-32: it must be a whole number, at least 1"),
        ("experiments/swin/swin_in1k.py:variant=tinny", [], "did you mean 'tiny'?"),
        ("experiments/quikstart.py", [], "did you mean 'experiments/quickstart.py'?"),
        ("nowhere/at_all.py", [], "no experiment file 'nowhere/at_all.py'"),
        ("swin_jax/core/errors.py", [], "does not define get_config"),
        ("", [], "not an experiment file"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(launch, tmp_path, no_run, config, flags, message):
    status, out, err = launch(config, tmp_path / "run", *flags)
    assert status == 2 and out == ""
    assert message in err and err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert not no_run and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--workdir=x", "--config.seed=1"], "give one --config=FILE.py"),
        (["--config", QUICKSTART, "--workdir=x"], "give one --config=FILE.py"),
        ([f"--config={QUICKSTART}"], "give --workdir=DIR"),
        ([f"--config={QUICKSTART}", "--workdir="], "give --workdir=DIR"),
        ([f"--config={QUICKSTART}", "--workdir"], "workdir"),
    ],
)
def test_config_and_workdir_are_needed(capsys, monkeypatch, root, no_run, argv, message):
    monkeypatch.chdir(root)
    assert launcher.run(["launch", *argv]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not no_run


@pytest.fixture
def trained(tmp_path):
    """A workdir with the config.json of a run."""
    saved = flatten(load(f"{QUICKSTART}:fake"))
    (tmp_path / "config.json").write_text(json.dumps(saved))
    return tmp_path


@pytest.mark.parametrize("action", ["predict", "index", "search", "edit", "export"])
def test_a_trained_run_is_used_without_its_experiment_file(action, launch, trained, no_run):
    status, _, err = launch(None, trained, f"--{action}=x", "--config.predict.batch_size=3")
    assert status == 0, err
    ((config, workdir, what, *_),) = no_run
    assert (workdir, what, config.predict.batch_size) == (str(trained), "x", 3)
    expected = flatten(load(f"{QUICKSTART}:fake")) | {"predict.batch_size": 3}
    assert flatten(config) == expected


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--predict=x", "--config.predict.batchsize=3"], "did you mean --config.predict.batch_size?"),
        (["--predict=x", "--config.image_size=16"], "give --config.task.image_size"),
        (["--predict=x", "--index=y"], "--predict and --index are two commands"),
        (["--config.seed=3"], "give one --config=FILE.py"),
        (["--plan=v5e:4x4"], "give one --config=FILE.py"),
    ],
)
def test_what_is_wrong_without_an_experiment_file_is_one_line(flags, message, launch, trained, no_run):
    status, _, err = launch(None, trained, *flags)
    assert status == 2 and message in err and err.count("\n") == 1 and not no_run


def test_a_workdir_of_no_run_is_told(launch, tmp_path, no_run):
    status, _, err = launch(None, tmp_path / "none", "--predict=x")
    assert status == 2 and "none/config.json does not exist: give the workdir of a trained run, or --config" in err
    assert not no_run and not (tmp_path / "none").exists()
    (tmp_path / "config.json").write_text(json.dumps({"task.fn": "os.system"}))
    status, _, err = launch(None, tmp_path, "--predict=x")
    assert status == 2 and err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--help", "-h", "-help", "--helpfull"])
def test_help_shows_examples_and_every_flag_and_exits_with_0(capsys, no_run, flag):
    assert launcher.run(["launch", "--workdir=x", flag]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "python -m swin_jax.launch --config=experiments/quickstart.py" in out
    for name in ("config", "workdir", "predict", "allow_change", "profile", "compilation_cache", "debug_nans"):
        assert f"--{name}" in out
    assert not no_run


ARGUMENTS = """\
Digits.

Arguments, joined by commas: --config={file}:KEY=VALUE,KEY=VALUE
  variant  tiny | small  (default: tiny)
  pod      v5e | h100  (default: none)
  fake     true | false  (default: false)
  window   int  (default: 8)
"""


def experiment(folder, call):
    """An experiment file with a docstring of two paragraphs."""
    file = folder / "mine.py"
    imports = "from swin_jax.core.config import parse_arg\nfrom experiments import quickstart\n"
    file.write_text(f'"""Digits.\n\nAt length."""\n{imports}\ndef get_config(arg):\n    {call}\n    return quickstart.'
                    'get_config(None)\n')  # fmt: skip
    return file


@pytest.mark.parametrize("asked", ["help", "fake,help"])
def test_a_file_lists_its_arguments_from_its_call_of_parse_arg(tmp_path, capsys, no_run, asked):
    call = 'parse_arg(arg, variant=("tiny", "small"), pod=("", "v5e", "h100"), fake=False, window=8)'
    file = experiment(tmp_path, call)
    assert launcher.run(["launch", f"--config={file}:{asked}"]) == 0
    assert capsys.readouterr() == (ARGUMENTS.format(file=file), "") and not no_run


@pytest.mark.parametrize("call", ["pass", "parse_arg(arg)"])
def test_a_file_without_arguments_says_so(tmp_path, capsys, no_run, call):
    file = experiment(tmp_path, call)
    assert launcher.run(["launch", f"--config={file}:help"]) == 0
    assert capsys.readouterr() == (f"Digits.\n\n{file} takes no arguments.\n", "") and not no_run


def test_an_argument_of_its_own_that_is_called_help_is_only_that(tmp_path, capsys, no_run):
    file = experiment(tmp_path, "assert parse_arg(arg, help=False).help")
    assert launcher.run(["launch", f"--config={file}:help", f"--workdir={tmp_path}"]) == 0
    assert capsys.readouterr() == ("", "") and len(no_run) == 1


@pytest.mark.parametrize("file", ["nowhere/at_all.py", "swin_jax/core/errors.py"])
def test_help_on_what_is_no_experiment(capsys, monkeypatch, root, file):
    monkeypatch.chdir(root)
    assert launcher.run(["launch", f"--config={file}:help"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "config", [QUICKSTART, "experiments/clip/clip_emoji.py", "experiments/video_swin/video_swin_k400.py"]
)
def test_the_printed_config_is_sorted_and_taken_back(capsys, monkeypatch, root, no_run, config):
    monkeypatch.chdir(root)
    argv = ["launch", f"--config={config}", "--config.batch_size=24"]
    assert launcher.run([*argv, "--print_config"]) == 0
    out, err = capsys.readouterr()
    pairs = [line.split(" = ", 1) for line in out.splitlines()]
    assert err == "" and not no_run
    assert ["batch_size", "24"] in pairs and ["data.batch_size", "24"] in pairs and pairs == sorted(pairs)
    wanted = command_line.parse([*argv, "--workdir=x"])[1]
    assert dict(pairs).keys() == flatten(wanted).keys()
    plain = [pair for pair in pairs if pair[1] != "None" and not callable(_at(wanted, pair[0]))]
    assert len(plain) > len(pairs) / 2
    again = command_line.parse([*argv, "--workdir=x", *(f"--config.{key}={value}" for key, value in plain)])[1]
    assert flatten(again) == flatten(wanted)


def _at(config, key):
    return functools.reduce(lambda node, part: node[part], key.split("."), config)


def test_the_printed_config_starts_no_accelerator(root):
    program = (
        "from swin_jax import launch; from jax._src import xla_bridge; "
        f"assert launch.run(['launch', '--config={QUICKSTART}', '--print_config']) == 0; "
        "assert not xla_bridge.backends_are_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "\nbatch_size = 64\n" in "\n" + done.stdout, done.stderr


def test_no_arguments_at_all_say_what_is_missing(capsys):
    assert launcher.run(["launch"]) == 2
    err = capsys.readouterr().err
    assert "--config=FILE.py" in err and "--help" in err and len(err.splitlines()) == 1


def test_overrides_reach_the_config_and_what_refers_to_them(launch, tmp_path, no_run):
    flags = ["--config.batch_size=16", "--config.task.model.depths=(1,1)", "--config.total_steps=7",
             "--config.mesh.fsdp=2", "--config.task.model.qkv_bias=false", "--config.task.label_smoothing=0",
             "--config.init_from.path=a=b",
             "--allow_change=seed", "--allow_change=task.tx", "--profile=3-5", "--config.task.tx.schedule.min_lr=1e-6",
             "--config.task.mean=(1,)"]  # fmt: skip
    status, out, err = launch(QUICKSTART, tmp_path / "run", *flags)
    assert (status, out, err) == (0, "", "")
    ((config, workdir, allow_change, profile),) = no_run
    assert workdir == str(tmp_path / "run") and allow_change == ["seed", "task.tx"] and profile == (3, 5)
    assert config.batch_size == config.data.batch_size == 16 and config.mesh.fsdp == 2
    assert config.task.model.depths == (1, 1) and config.task.model.qkv_bias is False
    assert config.total_steps == config.task.tx.schedule.total_steps == 7
    assert config.task.label_smoothing == 0.0 and config.init_from.path == "a=b"
    assert config.task.tx.schedule.min_lr == 1e-6
    assert config.task.mean == (1,)
    assert config.is_locked


def test_one_process_runs_twice_without_remembering(launch, tmp_path, no_run):
    launch(QUICKSTART, tmp_path, "--config.batch_size=16", "--profile=1-2")
    launch(QUICKSTART, tmp_path)
    assert [run[0].batch_size for run in no_run] == [16, 64] and no_run[1][3] is None


def test_predict_goes_to_prediction(launch, tmp_path, no_run):
    assert launch(QUICKSTART, tmp_path, "--predict=pictures")[0] == 0
    ((_, workdir, images),) = no_run
    assert (workdir, images) == (str(tmp_path), "pictures")


def test_a_user_error_is_one_line_and_its_status_tells_when_it_came(launch, tmp_path, monkeypatch):
    def fail(*arguments):
        raise UserError("no data")

    monkeypatch.setattr("swin_jax.train.loop.prepare", lambda *arguments: fail)
    assert launch(QUICKSTART, tmp_path) == (1, "", "error: no data\n")
    monkeypatch.setattr("swin_jax.train.loop.prepare", fail)
    assert launch(QUICKSTART, tmp_path) == (2, "", "error: no data\n")


def test_another_value_error_keeps_its_traceback(launch, tmp_path, monkeypatch, capsys):
    def fail(*arguments):
        np.zeros(2) + np.zeros(3)

    for prepare in (fail, lambda *arguments: fail):
        monkeypatch.setattr("swin_jax.train.loop.prepare", prepare)
        with pytest.raises(ValueError, match="operands could not be broadcast") as caught:
            launch(QUICKSTART, tmp_path)
        assert caught.traceback[-1].name == "fail" and "error:" not in capsys.readouterr().err


@pytest.mark.parametrize("action", ["--config.seed=1", "--predict=x", "--index=x", "--search=x", "--export=x"])
def test_a_full_disk_is_one_line_whatever_is_written(launch, tmp_path, monkeypatch, action):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("swin_jax.launch._prepare", lambda *arguments: full)
    status, out, err = launch(QUICKSTART, tmp_path, action)
    assert (status, out) == (1, "") and err.count("\n") == 1
    assert err.startswith(f"error: {tmp_path} cannot be written: No space left on device; ")


def test_an_interrupted_run_says_how_to_resume(launch, tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("swin_jax.train.loop.prepare", lambda *arguments: interrupt)
    assert launch(QUICKSTART, tmp_path) == (130, "", "interrupted; rerun the same command to resume\n")


@pytest.mark.parametrize("action, end", [("predict", ""), ("search", ""), ("edit", ""), ("index", " to resume")])
def test_only_what_resumes_says_so(launch, tmp_path, monkeypatch, action, end):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("swin_jax.launch._prepare", interrupt)
    found = launch(QUICKSTART, tmp_path, f"--{action}=images")
    assert found == (130, "", f"interrupted; rerun the same command{end}\n")


def test_a_cluster_is_detected_by_its_variables_only(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "SLURM_NTASKS", "SLURM_PROCID", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    assert not multihost.detected()
    for found, variables in [
        (True, {"JAX_COORDINATOR_ADDRESS": "host:1"}),
        (True, {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}),
        (False, {"SLURM_NTASKS": "2"}),
        (False, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}),
        (True, {"TPU_WORKER_HOSTNAMES": "a,b"}),
        (False, {"TPU_WORKER_HOSTNAMES": "a"}),
    ]:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            assert multihost.detected() is found, variables


def test_an_evaluation_can_be_left_out(no_run):
    assert (
        launcher.run(
            ["launch", "--config=experiments/video_swin/video_swin_emoji.py:fake", "--workdir=x", "--config.evals={}"]
        )
        == 0
    )
    assert not no_run[0][0].evals


def test_help_and_config_end_quietly_where_nobody_reads_on(root):
    flags = ([f"--config={QUICKSTART}", "--print_config"], ["--help"])
    for arguments in flags:
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "swin_jax.launch", *arguments]
        done = subprocess.run(command, cwd=root, stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        assert (done.returncode, done.stderr) == (141, "")
