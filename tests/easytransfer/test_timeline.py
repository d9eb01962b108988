"""Timelines written by hand, with times that can be worked out on paper."""

import json

import pytest

from easytransfer.distributed import timeline
from easytransfer.distributed.timeline import Exchange, covered, read_timeline, step_times, steps, summary


def events(pid: int, name: str, *spans: tuple[int, int, int]) -> list[dict]:
    """Events in Horovod's form for exchanges (submitted, begun, ended), in microseconds."""
    found = [{"name": "process_name", "ph": "M", "pid": pid, "args": {"name": name}}]
    for submitted, begun, ended in spans:
        found += [
            {"ph": "B", "name": "NEGOTIATE_ALLREDUCE", "ts": submitted, "pid": pid},
            {"ph": "X", "name": "1", "ts": begun, "pid": pid, "dur": 0},
            {"ph": "E", "ts": begun - 1, "pid": pid},
            {"ph": "B", "name": "ALLREDUCE", "ts": begun, "pid": pid},
            {"ph": "B", "name": "GLOO_ALLREDUCE", "ts": begun + 1, "pid": pid},
            {"ph": "E", "ts": ended - 1, "pid": pid},
            {"ph": "E", "ts": ended, "pid": pid, "args": {"dtype": "float32"}},
        ]
    return found


@pytest.fixture
def path(tmp_path):
    written = [
        {"name": "process_name", "ph": "M", "pid": 0, "args": {"start_time_since_epoch_in_micros": 1}},
        *events(1, "HorovodAllgather", (0, 1, 5)),
        *events(2, "bucket_1", (20, 40, 60), (1020, 1040, 1060)),
        *events(3, "bucket_0", (10, 15, 35), (1010, 1015, 1035)),
    ]
    file = tmp_path / "timeline.json"
    file.write_text(json.dumps(written))
    return file


def test_exchanges_are_read_and_grouped_by_step(path):
    exchanges = read_timeline(path)
    assert [(e.name, round(e.submitted * 1e6), round(e.begun * 1e6), round(e.ended * 1e6)) for e in exchanges[:2]] == [
        ("bucket_0", 10, 15, 35),
        ("bucket_1", 20, 40, 60),
    ]
    assert [[e.name for e in step] for step in steps(exchanges)] == [["bucket_0", "bucket_1"]] * 2


def test_a_timeline_that_was_cut_off_is_read_as_far_as_it_goes(path):
    text = path.read_text()
    path.write_text(text[: text.rindex("GLOO_ALLREDUCE") + 3])
    assert len(read_timeline(path)) == 3


def test_parts_of_a_step():
    # Computed at 20; travels 15..35 and 40..60: of the 40 afterwards 15 + 20 travel, 5 wait; 5 travelled before.
    times = step_times([Exchange("a", 10, 15, 35), Exchange("b", 20, 40, 60)])
    assert times == {"exchange_s": 35, "wait_s": 5, "overlapped_s": 5}
    assert step_times([Exchange("a", 0, 1, 4), Exchange("b", 6, 9, 10)]) == {
        "exchange_s": 1,
        "wait_s": 3,
        "overlapped_s": 3,
    }


def test_union_of_spans():
    assert covered([(0, 2), (1, 3), (5, 6), (5, 5.5)]) == 4 and covered([]) == 0


def test_summary_adds_up_and_has_a_picture(path, tmp_path):
    exchanges = read_timeline(path)
    parts = summary(exchanges, step_s=100e-6, input_s=10e-6)
    assert sum(parts[name] for name in timeline.PARTS) == pytest.approx(parts["step_s"])
    assert parts["compute_s"] == pytest.approx(50e-6) and parts["wait_s"] == pytest.approx(5e-6)
    pytest.importorskip("matplotlib")
    timeline.timeline_picture(exchanges, parts).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert summary(exchanges[:2], 1, 0) == {}


def test_autotune_log_gives_the_settings_of_the_best_score(tmp_path):
    log = tmp_path / "log.csv"
    header = "hierarchical_allreduce,torus_allreduce,cache_enabled,cycle_time_ms,tensor_fusion_threshold,score\n"
    log.write_text(header + "0,0, 0,5,64,0.2\n0,0, 0,2.5,16,0.7\n0,0, 0,50,8,0.01\n")
    assert timeline.best_of_autotune(log) == {"tried": 3, "cycle_time_ms": 2.5, "fusion_mb": 16}
    log.write_text(header)
    assert timeline.best_of_autotune(log) is None
