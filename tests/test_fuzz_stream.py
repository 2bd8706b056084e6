"""Hostile streams, some hundreds and with `-m slow` more than two thousand: each ends in a clean error or in correct
frames, in bounded memory."""
import io
import random
import resource
import struct
import time
import zlib
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from stream_helpers import clip, encode_parts, tiny_codec

from models.entropy.stream import StreamError
from util.coding.bitstream import SYNC, Packet, pack_end
from util.coding.gop import CodingPlan
from util.coding.reader import StreamReader

MEMORY = 2 << 30
SECONDS = 20.0
"""For one case, on a busy machine."""


def seeds(count: int, few: int) -> pytest.MarkDecorator:
    """Runs a test with `few` seeds, and with the others if slow tests are asked for."""
    return pytest.mark.parametrize("seed", [seed if seed < few else pytest.param(seed, marks=pytest.mark.slow)
                                            for seed in range(count)])


@lru_cache(maxsize=2)
def original(portable: bool = False):
    """Pieces of a stream of five small frames, with the frames."""
    parts = encode_parts(tiny_codec(), clip(5, 16, 16), CodingPlan(qp=30, intra_qp=30, gop=3), portable=portable)
    return [part.data for part in parts], [part.frame for part in parts[1:-1]]


@pytest.fixture(autouse=True)
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def survive(stream: bytes, frames: list[torch.Tensor], rng: random.Random, *, forged: bool = False) -> str:
    """Decode strictly or tolerantly, by chance; returns how it ended: error, reported or complete.

    Frames must be right; of forged streams, whose checksums agree, only those that are not reported to differ.
    """
    reports, outcome, start = [], "complete", time.monotonic()
    keep_going = rng.random() < 0.5
    try:
        decoding = tiny_codec().decode(io.BytesIO(stream), keep_going=keep_going, report=reports.append)
        for n, frame in enumerate(decoding):
            assert n < 50 and bool(frame.frame.isfinite().all())
            if not frame.matches:
                assert forged and any("differ slightly" in line for line in reports)
                continue
            same = frame.number < len(frames) and torch.equal(frame.frame, frames[frame.number])
            assert same or forged, "a wrong frame"
        outcome = "reported" if reports else "complete"
    except StreamError as error:
        assert len(str(error)) < 500 and "\n" not in str(error)
        outcome = "error"
    assert time.monotonic() - start < SECONDS
    return outcome


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One or a few accidents."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 30))
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:at + length] = rng.randbytes(length)
        elif kind == 2:
            data[at:at] = rng.randbytes(length)
        elif kind == 3:
            del data[at:at + length]
        elif kind == 4:
            data[at:at] = data[at // 2:at // 2 + 10 * length]
        else:
            del data[at:]
    return bytes(data)


@seeds(15, few=4)
def test_accidents_anywhere(seed):
    rng, (data, frames) = random.Random(seed), original(portable=seed % 5 == 0)
    stream = b"".join(data)
    outcomes = [survive(mutate(stream, rng), frames, rng) for _ in range(40)]
    assert outcomes.count("complete") < 8 and outcomes.count("error") > 5


@seeds(10, few=3)
def test_accidents_between_whole_packets(seed):
    rng, (data, frames) = random.Random(100 + seed), original()
    for _ in range(20):
        packets = [packet if rng.random() < 0.9 else rng.choice((b"", SYNC, rng.randbytes(50), rng.choice(data)))
                   for packet in data[1:]]
        if rng.random() < 0.5:
            rng.shuffle(packets)
        survive(data[0] + b"".join(packets), frames, rng)


def seal(head: bytes) -> bytes:
    return head + struct.pack("<I", zlib.crc32(head))


@seeds(10, few=3)
def test_forged_headers(seed):
    """Any size, rate, alignment, arithmetic and so on, with the right checksum."""
    rng, (data, frames) = random.Random(200 + seed), original()
    outcomes = []
    for _ in range(70):
        head = bytearray(data[0][:-4])
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = rng.randrange(4, len(head) - 12 if rng.random() < 0.9 else len(head))
            if rng.random() < 0.3:
                head[at:at + 1] = rng.randbytes(rng.randrange(4))
            else:
                head[at] = rng.choice((0, 1, 16, 127, 128, 255, rng.randrange(256)))
        outcomes.append(survive(seal(bytes(head)) + b"".join(data[1:]), frames, rng, forged=True))
    assert outcomes.count("error") > 20


def forge(packet: Packet, rng: random.Random, bounds) -> Packet:
    """Something in the packet that its writer did not put there; the checksum of its bytes will be right."""
    kind = rng.randrange(8)
    if kind == 0:
        return replace(packet, qp=rng.randrange(256))
    if kind == 1:
        return replace(packet, number=rng.choice((0, 1, 2, 3, (1 << 32) - 1)))
    if kind == 2 and not packet.intra:
        return replace(packet, frame_type=rng.randrange(3), refresh=rng.random() < 0.5)
    if kind == 3:
        return replace(packet, symbols=rng.getrandbits(16), pixels=rng.getrandbits(16))
    least, most = bounds(packet.intra)
    length = rng.choice((0, least, max(0, least - 1), most, most + 1, rng.randrange(most + 1), len(packet.payload)))
    fill = rng.choice((rng.randbytes(length), b"\xff" * length, bytes(length), packet.payload[:length]))
    return replace(packet, payload=fill)


@seeds(12, few=2)
def test_forged_packets(seed):
    """The networks meet symbols that no encoder would write: huge, or of other frames."""
    rng, (data, frames) = random.Random(300 + seed), original(portable=seed % 4 == 0)
    outcomes = []
    for _ in range(45):
        reader = StreamReader(io.BytesIO(b"".join(data)))
        bounds = tiny_codec().session(reader.header).bounds
        packets = []
        while isinstance(packet := reader.next_packet(bounds), Packet):
            packets.append(forge(packet, rng, bounds) if rng.random() < 0.25 else packet)
        stream = data[0] + b"".join(packet.pack(reader.header) for packet in packets) + pack_end(len(packets))
        outcomes.append(survive(stream, frames, rng, forged=True))
    assert outcomes.count("error") > 5 and outcomes.count("reported") > 5


@seeds(5, few=2)
def test_noise(seed):
    rng, (data, frames) = random.Random(400 + seed), original()
    for _ in range(30):
        start = rng.choice((b"", data[0][:4], data[0], data[0] + SYNC))
        survive(start + rng.randbytes(rng.randrange(3000)), frames, rng)
