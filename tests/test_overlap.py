"""The host's work behind the networks: the same results and errors in the same order, bounded, and stopped cleanly."""
import gc
import io
import threading
import time
import weakref

import pytest
import torch
from stream_helpers import PLAN, clip, codec_of, decode, encode_parts, tiny_codec, wild_codec

from models.entropy.stream import StreamEncoder, StreamError
from util.coding.codec import Codec
from util.coding.overlap import in_order
from util.errors import InputError

BEHIND = pytest.mark.parametrize("behind", [0, 1, 2])


def doing(n: int):
    return lambda: n


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("host work")]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not workers()


@BEHIND
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_come_in_order(behind, count):
    assert list(in_order(map(doing, range(count)), behind)) == list(range(count))


@BEHIND
def test_tasks_are_taken_when_there_is_room(behind):
    taken = []

    def tasks():
        for n in range(8):
            taken.append(n)
            yield doing(n)
    for n in in_order(tasks(), behind):
        assert len(taken) == min(n + 1 + behind, 8)


def test_a_task_runs_while_the_next_is_made():
    made, threads = threading.Event(), set()

    def wait() -> bool:
        threads.add(threading.current_thread().name)
        return made.wait(20)

    def tasks():
        yield wait
        made.set()
        yield doing(2)
    assert list(in_order(tasks(), 1)) == [True, 2] and threads != {threading.current_thread().name}


@BEHIND
@pytest.mark.parametrize("bad", [0, 1, 4])
def test_errors_of_tasks_and_of_their_maker_come_after_what_was_before(behind, bad):
    def fail():
        raise InputError("task")

    def maker(whole: bool):
        for n in range(6):
            if n == bad and whole:
                raise InputError("maker")
            yield fail if n == bad else doing(n)
    for whole, name in ((False, "task"), (True, "maker")):
        results = []
        with pytest.raises(InputError, match=name):
            for result in in_order(maker(whole), behind):
                results.append(result)
        assert results == list(range(bad))


@pytest.mark.parametrize("behind", [1, 2])
def test_the_earlier_of_two_errors_counts(behind):
    def fail():
        raise InputError("task")

    def tasks():
        yield doing(0)
        yield fail
        raise InputError("maker")
    results = in_order(tasks(), behind)
    assert next(results) == 0
    with pytest.raises(InputError, match="task"):
        next(results)


@BEHIND
def test_nothing_runs_after_the_caller_has_stopped(behind):
    done = []
    results = in_order(((lambda n=n: done.append(n)) for n in range(100)), behind)
    next(results), next(results)
    results.close()
    count = len(done)
    assert count <= 2 + behind and not workers()


def test_what_still_waits_is_given_up():
    done = []

    def slow(n: int):
        time.sleep(0.3)
        done.append(n)
    results = in_order((doing(n) if n < 2 else (lambda n=n: slow(n)) for n in range(10)), 2)
    next(results), next(results)                                    # 2 is running, 3 waits for it
    results.close()
    assert done in ([], [2])


# Streams

def behind_codec(behind: int, model=None) -> Codec:
    codec = codec_of(model or tiny_codec().network("float32"))
    codec.behind = behind
    return codec


@pytest.mark.parametrize("make", [tiny_codec, wild_codec])
@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("behind", [1, 2])
def test_streams_are_the_same(make, portable, behind):
    frames = clip(6, 33, 48)
    expected = encode_parts(make(), frames, portable=portable)
    parts = encode_parts(behind_codec(behind, make().network("float32")), frames, portable=portable)
    assert [part.data for part in parts] == [part.data for part in expected]
    for part, other in zip(parts[1:-1], expected[1:-1]):
        assert part.number == other.number and torch.equal(part.frame, other.frame) and part.bits == other.bits
    assert len(decode(make(), b"".join(part.data for part in parts))) == 6


def test_a_bad_frame_ends_the_stream_after_those_before_it():
    parts = []
    with pytest.raises(InputError, match=r"frame 4 is 17x16, but frame 1 is 16x16"):
        for part in behind_codec(1).encode([*clip(3, 16, 16), *clip(1, 16, 17)], PLAN):
            parts.append(part)
    assert [part.number for part in parts] == [None, 0, 1, 2]


def test_a_frame_that_cannot_be_coded_ends_the_stream_after_those_before_it(monkeypatch):
    payload, calls = StreamEncoder.payload, []

    def failing(self):
        calls.append(threading.current_thread())
        if len(calls) == 3:
            raise StreamError("cannot be coded")
        return payload(self)
    monkeypatch.setattr(StreamEncoder, "payload", failing)
    parts = []
    with pytest.raises(StreamError, match="cannot be coded"):
        for part in behind_codec(1).encode(clip(6, 16, 16), PLAN):
            parts.append(part)
    assert [part.number for part in parts] == [None, 0, 1]
    assert threading.current_thread() not in calls


def test_stopping_early_leaves_no_thread():
    parts = behind_codec(2).encode(clip(6, 16, 16), PLAN)
    for _ in range(3):
        next(parts)
    assert workers()
    parts.close()
    assert not workers()


@BEHIND
def test_the_number_of_frames_in_memory_does_not_grow(behind, monkeypatch):
    alive = weakref.WeakSet()

    class Watched(StreamEncoder):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            alive.add(self)
    monkeypatch.setattr("util.coding.session.StreamEncoder", Watched)
    most = 0
    for _ in behind_codec(behind).encode(clip(7, 16, 16), PLAN):
        gc.collect()
        most = max(most, len(alive))
    assert most <= behind + 2
    gc.collect()
    assert not alive


def test_decoding_does_not_depend_on_it():
    stream = b"".join(part.data for part in encode_parts(tiny_codec(), clip(4, 16, 16)))
    frames = [frame.frame for frame in tiny_codec().decode(io.BytesIO(stream))]
    assert all(torch.equal(a, b.frame) for a, b in zip(frames, behind_codec(1).decode(io.BytesIO(stream)), strict=True))
