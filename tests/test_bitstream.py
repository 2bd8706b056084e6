"""Whole streams: what is decoded is what the encoder saw; headers; what is refused before any work."""
import io
import os
import struct
import threading
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stream_helpers import PLAN, clip, codec_of, coded, decode, encode, same, tiny_codec, wild_codec

from dataloader import video_out
from helpers import STEPS, full_config, seeded_model
from models.entropy.stream import StreamError
from util.coding import reader
from util.coding.bitstream import Packet, StreamHeader, pack_end, varint
from util.coding.gop import CodingPlan
from util.coding.reader import StreamReader
from util.coding.session import to_pixels
from util.errors import InputError

# Round trips

@pytest.mark.parametrize("make", [tiny_codec, wild_codec])
@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("height, width, count", [(16, 16, 1), (17, 31, 2), (64, 48, 3), (65, 81, 4), (1, 1, 2)])
def test_round_trip(make, portable, height, width, count):
    encoded, stream = coded(make(), clip(count, height, width), portable=portable)
    decoded = decode(make(), stream)
    assert len(decoded) == count == len(encoded) and all(map(same, encoded, decoded))
    assert decoded[0].frame.shape == (1, 3, height, width)


@pytest.mark.parametrize("qp", [0, 21, 42, 63])
def test_round_trip_at_all_rates(qp):
    encoded, stream = coded(tiny_codec(), clip(3, 32, 32), CodingPlan(qp=qp, intra_qp=63 - qp))
    assert all(map(same, encoded, decode(tiny_codec(), stream, max_pixels=None)))


def test_forty_frames_with_every_frame_type_reset_and_scene_cut():
    plan = CodingPlan(qp=30, intra_qp=40, gop=16, reset_interval=6, scene_cuts=frozenset({5, 21, 22}))
    encoded, stream = coded(tiny_codec(), clip(40, 16, 24), plan)
    decoded = decode(tiny_codec(), stream)
    assert len(decoded) == 40 and all(map(same, encoded, decoded))
    assert [d.number for d in decoded if d.header.intra] == [0, 5, 16, 21, 22, 32]
    assert {d.header.frame_type for d in decoded} == {0, 1, 2}
    assert [d.number for d in decoded if d.header.refresh] == [1, 7, 13, 17, 23, 29, 33, 39]


@pytest.mark.parametrize("motion, inter", STEPS)
def test_round_trip_of_every_training_step(motion, inter):
    codec = tiny_codec(motion, inter)
    intra_qp = 42 if codec.network("float32").config.variable_rate else 3
    encoded, stream = coded(codec, clip(3, 32, 48), CodingPlan(qp=42, intra_qp=intra_qp))
    assert all(map(same, encoded, decode(codec, stream)))


def test_alignment_is_in_the_stream():
    encoded, stream = coded(tiny_codec(), clip(2, 20, 40), align=64)
    decoded = decode(tiny_codec(), stream)
    assert all(map(same, encoded, decoded)) and decoded[0].coded.frame.shape == (1, 3, 64, 64)


def test_full_width_round_trip():
    codec = codec_of(seeded_model(full_config()))
    encoded, stream = coded(codec, clip(3, 64, 64))
    assert len(encoded) == 3 and all(map(same, encoded, decode(codec, stream)))


# Laziness and pipes

def test_frames_are_taken_and_given_one_at_a_time():
    taken = []

    def frames():
        for frame in clip(4, 16, 16):
            taken.append(1)
            yield frame
    chunks = tiny_codec().compress(frames(), PLAN)
    assert not taken
    data, counts = [], []
    for chunk in chunks:
        data.append(chunk)
        counts.append(len(taken))
    assert counts == [1, 1, 2, 3, 4, 4]
    # All of frame 2 has come, nothing of frame 3: frames 1 and 2 must be there.
    reading = tiny_codec().decompress(io.BytesIO(b"".join(data[:3])))
    assert next(reading).shape == next(reading).shape == (3, 16, 16)
    with pytest.raises(StreamError, match="after 2 complete frames"):
        next(reading)


def test_pipes():
    frames = clip(5, 32, 32)
    read_end, write_end = os.pipe()

    def write():
        with os.fdopen(write_end, "wb") as pipe:
            for chunk in tiny_codec().compress(frames, PLAN):
                pipe.write(chunk)
            pipe.write(b"something else that follows")
    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        decoded = list(tiny_codec().decompress(pipe))
        assert pipe.read(100) == b"something else that follows"
    writer.join()
    encoded, _ = coded(tiny_codec(), frames)
    assert all(torch.equal(to_pixels(e.frame), d) for e, d in zip(encoded, decoded)) and len(decoded) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_files_are_rounded_as_decoders_round(dtype):
    """At every border between two levels and on both sides of it."""
    borders = (torch.arange(255, dtype=dtype) + 0.5) / 255
    below, above = (torch.nextafter(borders, torch.tensor(end, dtype=dtype)) for end in (-1, 2))
    frame = torch.stack((below, borders, above)).view(1, 3, 5, 51)
    assert np.array_equal(video_out.to_pixels(frame[0]), to_pixels(frame).permute(1, 2, 0).numpy())


# What cannot be compressed

def test_bad_frames_are_errors():
    with pytest.raises(InputError, match="no frames"):
        encode(tiny_codec(), [])
    with pytest.raises(InputError, match=r"frame 2 is torch.uint8 \(3, 16, 17\)"):
        encode(tiny_codec(), [*clip(1, 16, 16), *clip(1, 16, 17)])
    with pytest.raises(InputError, match="frame 1 is torch.float32"):
        encode(tiny_codec(), [torch.zeros(3, 16, 16)])
    with pytest.raises(InputError, match="--align_factor 24"):
        encode(tiny_codec(), clip(1, 16, 16), align=24)
    with pytest.raises(InputError, match="QP 42 is outside 0..3"):
        encode(tiny_codec("Motion_Explicit", "Inter_MCR_Explicit"), clip(1, 16, 16))


# Headers

headers = st.builds(
    StreamHeader, width=st.integers(1, 1 << 20), height=st.integers(1, 1 << 20),
    align=st.integers(1, 255).map(lambda n: 16 * n), arithmetic=st.sampled_from(["float32", "float64"]),
    device=st.sampled_from(["cpu", "cuda", "other"]),
    rate=st.none() | st.builds(Fraction, st.integers(1, (1 << 32) - 1), st.integers(1, (1 << 32) - 1)),
    color=st.text(st.characters(max_codepoint=127), max_size=32), gop=st.integers(1, (1 << 32) - 1),
    qp=st.integers(0, 63), intra_qp=st.integers(0, 63), fingerprint=st.binary(min_size=8, max_size=8),
    tables=st.integers(0, (1 << 32) - 1))


@given(headers)
def test_headers_are_read_back(header):
    assert StreamReader(io.BytesIO(header.pack())).header == header


@given(st.integers(0, (1 << 32) - 1))
def test_numbers_are_read_back(value):
    given = reader._Input(io.BytesIO(varint(value) + b"\x05"))
    assert given.varint() == value and given.read(1) == b"\x05"


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff\xff\xff\xff\x10", b"\xff\xff\xff\xff\xff\x01"])
def test_malformed_numbers(data):
    with pytest.raises(StreamError, match="malformed"):
        reader._Input(io.BytesIO(data)).varint()


def resealed(stream: bytes, change) -> bytes:
    """A stream with another header, its checksum right."""
    size = len(StreamReader(io.BytesIO(stream)).header.pack())
    head = change(bytearray(stream[:size - 4]))
    return bytes(head) + struct.pack("<I", zlib.crc32(head)) + stream[size:]


def poke(position: int, value: int):
    def change(head: bytearray) -> bytearray:
        head[position] = value
        return head
    return change


def test_foreign_streams_are_named():
    stream = encode(tiny_codec(), clip(1, 16, 16))
    for data, message in (
            (b"\x89PNG" + stream, "no HyTIP stream"), (b"", "within its header"), (stream[:10], "within its header"),
            (stream[:3] + b"\1" + stream[4:], "version 1 is not 2"),
            (stream[:6] + b"\x21" + stream[7:], "header of the stream is damaged"),
            (resealed(stream, poke(4, 0x15)), "arithmetic mode 5"), (resealed(stream, poke(5, 0)), "width 0"),
            (resealed(stream, poke(-10, stream[15] ^ 1)), "other weights or configurations"),
            (resealed(stream, poke(-1, 1)), "tables differ")):
        with pytest.raises(StreamError, match=message) as caught:
            decode(tiny_codec(), data)
        assert "\n" not in str(caught.value)


def test_other_weights_and_configurations_are_refused():
    stream = encode(tiny_codec(), clip(1, 16, 16))
    model = seeded_model(tiny_codec().network("float32").config, salt=1)
    for other in (codec_of(model), wild_codec(), tiny_codec("Motion_Explicit", "Inter_MCR_Explicit")):
        with pytest.raises(StreamError, match="other weights or configurations"):
            decode(other, stream)


def test_large_frames_are_refused_before_any_work():
    codec = tiny_codec()
    header = StreamHeader(width=100_000, height=100_000, gop=32, qp=0, intra_qp=0, fingerprint=codec.fingerprint,
                          tables=codec.tables.checksum())
    with pytest.raises(StreamError, match="100000x100000 .* raise --max_pixels"):
        decode(codec, header.pack())
    with pytest.raises(StreamError, match="64x64 take 4096 pixels with padding, more than 4095"):
        decode(codec, encode(codec, clip(1, 64, 64)), max_pixels=4095)


def test_a_section_too_short_for_the_frame_is_refused_before_any_work(monkeypatch):
    """A kilobyte cannot ask for the work of a large frame."""
    codec = tiny_codec()
    header = StreamHeader(width=3840, height=2160, gop=32, qp=0, intra_qp=0, fingerprint=codec.fingerprint,
                          tables=codec.tables.checksum())
    packet = Packet(number=0, intra=True, qp=0, sections={"iz": bytes(500), "iy": bytes(500)}, symbols=0, pixels=0)
    monkeypatch.setattr(codec.network("float32"), "code_frame", lambda *_: pytest.fail("work was done"))
    with pytest.raises(StreamError, match="section iz of 500 bytes is outside"):
        decode(codec, header.pack() + packet.pack() + pack_end(1))
