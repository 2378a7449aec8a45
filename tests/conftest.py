"""Every test runs on 8 virtual CPU devices, in full float32, with rank promotion and our own deprecations as errors."""

import ctypes
import gc
import importlib.metadata
import os
import pathlib
import signal
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
# Shared by the processes of one test run, and by the runs of one machine, because compiling is what tests wait for.
CACHE = pathlib.Path(tempfile.gettempdir()) / f"swin_jax_test_cache_{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Programs of tests run for milliseconds: machine code that is quickly made serves them better than quick machine code.
QUICKLY_MADE = "--xla_backend_optimization_level=0"
# Two collectives at a time may wait for each other on two cores (jaxlib 0.10.2): one after the other they cannot.
QUICKLY_MADE += " --xla_cpu_enable_concurrency_optimized_scheduler=false"
# To cut a program into parts for several threads is a seventh of the work, and two workers have no core for them.
QUICKLY_MADE += " --xla_cpu_parallel_codegen_split_count=1"
# Of eight devices on two busy cores one may come late to a collective: by default the process is aborted after 40 s.
QUICKLY_MADE += " --xla_cpu_collective_call_terminate_timeout_seconds=300"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones refuse to start with this flag
    QUICKLY_MADE += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{QUICKLY_MADE} {os.environ.get('XLA_FLAGS', '')}"

import jax  # noqa: E402
import orbax.checkpoint as ocp  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
# Orbax divides an array among the devices that have a copy, by a program per slice: too dear for the arrays of tests.
# Processes that tests start save as users do.
ocp.type_handlers.register_type_handler(
    jax.Array, ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=2**20), override=True
)
if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain's workers look at absl flags

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has it ignored, and what tests start inherits that

ROOT = pathlib.Path(__file__).parent.parent
MOST_MEMORY = 3 * 2**30  # bytes of a worker of the tests


def pytest_collection_finish():
    """Collects garbage seldom, and never looks again at what the collected tests consist of.

    A traced program is a hundred thousand small objects: by Python's own thresholds a tenth of the time is spent on
    finding that none of them is garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 20)


@pytest.fixture(autouse=True, scope="module")
def small_worker():
    """Forgets compiled programs where they have made this process large: those of all tests take 7 GB."""
    yield
    if _resident_bytes() > MOST_MEMORY:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes() -> int:
    """The memory of this process; 0 where the system does not tell."""
    path = pathlib.Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0


@pytest.fixture(autouse=True)
def plain_resizing(monkeypatch):
    """Has images resized by PIL whatever is installed, since tests compare with its pixels; gives what would do it."""
    from swin_jax.data.image import resizing

    library = resizing._library
    monkeypatch.setattr(resizing, "_library", lambda: None)
    return library


@pytest.fixture
def real_resizing(monkeypatch, plain_resizing):
    """Has images resized by the extra `loader` where it is installed, as users have them."""
    monkeypatch.setattr("swin_jax.data.image.resizing._library", plain_resizing)


@pytest.fixture
def root() -> pathlib.Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture
def launch(capsys, monkeypatch):
    """Runs the launcher in this process: launch(config, workdir, *flags) -> (exit status, stdout, stderr).

    `config=None` gives no --config.
    """
    from swin_jax import launch as launcher

    monkeypatch.chdir(ROOT)

    def run(config, workdir, *arguments):
        given = [] if config is None else [f"--config={config}"]
        status = launcher.run(["launch", *given, f"--workdir={workdir}", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
