"""A run's metrics in W&B, on request."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping

from etils import epath

from swin_jax.core import storage
from swin_jax.core.errors import UserError, extra
from swin_jax.core.output.text import say


def check_installed() -> None:
    """Raises UserError, with what to install, where the package of W&B is missing."""
    with extra("wandb", "logging to W&B needs a package"):
        import wandb  # noqa: F401


class Run:
    """A run of W&B, whose id lies in the workdir, so that a resumed run continues it.

    A network or a service that fails costs what W&B shows, and no step of the training.

    Args:
        workdir: Folder of the run, for the id.
        folder: Local folder for the files of W&B.
        project: Name of the project.
        config: Values that W&B shows beside the run.

    Raises:
        UserError: W&B is not installed or cannot be started, for want of a key for example.
    """

    def __init__(
        self, workdir: epath.Path, folder: pathlib.Path, project: str, config: Mapping | None
    ):
        check_installed()
        import wandb

        path = workdir / "wandb_id.txt"
        if not path.exists():
            storage.write(path, os.urandom(4).hex())
        self._told, name = False, path.read_text()
        where = dict(project=project, dir=str(folder), id=name, resume="allow")
        try:
            self._run = wandb.init(**where, config=dict(config or {}))
        except Exception as error:  # of the service, the network or a setting: no common class
            raise UserError(
                f"W&B cannot be started ({storage.first_line(error)}): run `wandb login`, set "
                "WANDB_MODE=offline, or leave out --config.logs.wandb"
            ) from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Logs finite values of a step."""
        with self._tolerance():
            self._run.log(values, step=step)

    def finish(self) -> None:
        """Sends what is still to be sent."""
        with self._tolerance():
            self._run.finish()

    @contextlib.contextmanager
    def _tolerance(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._told:
                say(f"W&B lacks a part of the log ({storage.first_line(error)}); it goes on")
            self._told = True
