"""What a run writes for TensorBoard."""

from swin_jax.train import logs
from tests.unit.train.test_logs import write_steps


def test_tensorboard_has_the_finite_values_and_purges_on_resume(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    write_steps(tmp_path, [1, 2, 3])
    with logs.Logs(tmp_path, 100, restored_step=2) as log:
        log.write(3, {"train/loss": 7.0, "bad": float("nan")})

    def events(path):  # TFRecord framing: length, checksum, payload, checksum
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]

    first, second = (list(events(path)) for path in sorted((tmp_path / "tensorboard").iterdir()))
    scalars = [(e.step, v.tag, v.simple_value) for e in second for v in e.summary.value]
    assert scalars == [(3, "train/loss", 7.0)]
    assert {(e.step, v.tag) for e in first for v in e.summary.value} >= {(1, "train/loss"), (3, "train/learning_rate")}
    assert [e.step for e in second if e.session_log.status == 1] == [3]  # START: hides steps from 3 on
