"""Whole streams: what is decoded is what the encoder saw; headers; what is refused before any work."""
import io
import os
import struct
import threading
import zlib
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stream_helpers import PLAN, clip, codec_of, coded, decode, encode, same, tiny_codec, wild_codec

from dataloader import frames_out
from helpers import STEPS, full_config, seeded_model
from models.entropy.stream import StreamError
from util.coding import reader
from util.coding.bitstream import HEADER_FIELDS, Packet, StreamHeader, pack_end
from util.coding.codec import Codec
from util.coding.fields import varint
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
    assert np.array_equal(frames_out.to_pixels(frame[0]), to_pixels(frame).permute(1, 2, 0).numpy())


# What cannot be compressed

def test_bad_frames_are_errors():
    with pytest.raises(InputError, match="no frames"):
        encode(tiny_codec(), [])
    with pytest.raises(InputError, match="frame 2 is 17x16, but frame 1 is 16x16"):
        encode(tiny_codec(), [*clip(1, 16, 16), *clip(1, 16, 17)])
    with pytest.raises(InputError, match="--align_factor 24"):
        encode(tiny_codec(), clip(1, 16, 16), align=24)
    with pytest.raises(InputError, match="QP 42 is outside 0..3"):
        encode(tiny_codec("Motion_Explicit", "Inter_MCR_Explicit"), clip(1, 16, 16))


# Headers

ratios = st.builds(Fraction, st.integers(1, (1 << 32) - 1), st.integers(1, (1 << 32) - 1))
names = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64)
headers = st.builds(
    StreamHeader, codec=names, model=names, weights=names, width=st.integers(1, 1 << 20),
    height=st.integers(1, 1 << 20),
    align=st.integers(1, 4096), arithmetic=st.sampled_from(["float32", "float64", "bfloat16", "float16"]),
    device=st.sampled_from(["cpu", "cuda", "other"]), threads=st.none() | st.integers(1, 4096), processor=names,
    gop=st.integers(1, (1 << 32) - 1), qp=st.integers(0, 255), intra_qp=st.integers(0, 255), rate=st.none() | ratios,
    time_base=st.none() | ratios, start=st.integers(1 - (1 << 31), (1 << 31) - 1), matrix=st.integers(0, 255),
    range=st.sampled_from(["limited", "full"]), primaries=st.integers(0, 255), transfer=st.integers(0, 255),
    assumed=st.booleans(), pixel_aspect=st.none() | ratios, fingerprint=st.binary(min_size=8, max_size=8),
    tables=st.integers(0, (1 << 32) - 1))


@given(headers)
def test_headers_are_read_back(header):
    assert StreamReader(io.BytesIO(header.pack())).header == header


def test_every_attribute_is_a_field_and_what_is_usual_takes_no_room():
    assert [field.name for field in HEADER_FIELDS] and {field.name for field in HEADER_FIELDS} == {
        field.name for field in fields(StreamHeader)}
    plain = StreamHeader(codec="hytip", width=416, height=240, gop=32, qp=1, intra_qp=1, fingerprint=bytes(8), tables=0)
    assert all(getattr(plain, field.name) == field.default for field in HEADER_FIELDS if field.optional)
    assert len(plain.pack()) == 37


packets = st.builds(
    Packet, number=st.integers(0, (1 << 32) - 1), intra=st.just(False), qp=st.integers(0, 255),
    frame_type=st.integers(0, 3), refresh=st.booleans(), delay=st.integers(1 - (1 << 31), (1 << 31) - 1),
    payload=st.binary(max_size=300), symbols=st.integers(0, 65535), pixels=st.integers(0, 65535))


intra_packets = packets.map(lambda p: replace(p, intra=True, frame_type=0, refresh=False))


@given(headers, st.lists(packets | intra_packets))
def test_packets_are_read_back(header, sent):
    reader = StreamReader(io.BytesIO(b"".join([header.pack(), *(p.pack(header) for p in sent), pack_end(len(sent))])))
    assert [reader.next_packet(lambda intra: (0, 300)) for _ in sent] == sent
    assert reader.next_packet(lambda intra: (0, 300)) == len(sent)


def test_a_frame_that_keeps_to_the_plan_has_eleven_bytes_of_container():
    """Those of its number and length are two as long as both are small."""
    header = StreamHeader(codec="hytip", width=8, height=8, gop=32, qp=7, intra_qp=9, fingerprint=bytes(8), tables=0)
    for intra, qp in ((False, 7), (True, 9)):
        packet = Packet(number=100, intra=intra, qp=qp, payload=bytes(100), symbols=1, pixels=2)
        assert len(packet.pack(header)) == 100 + 11
        assert len(replace(packet, qp=8, delay=-3).pack(header)) == 100 + 13


@pytest.mark.parametrize("change, words", [
    ({"width": 0}, "width 0 is outside 1..1048576"), ({"align": 5000}, "align 5000 is outside 1..4096"),
    ({"rate": Fraction(-1)}, "rate -1 must be positive"), ({"model": "\n"}, "printable ASCII"),
    ({"model": "x" * 65}, "at most 64"), ({"arithmetic": "float8"}, "'float8' is none of float32"),
    ({"start": 1 << 31}, "start 2147483648 is outside")])
def test_what_a_header_cannot_hold_is_named(change, words):
    known = {"codec": "hytip", "width": 16, "height": 16, "gop": 1, "qp": 0, "intra_qp": 0, "fingerprint": bytes(8),
             "tables": 0}
    with pytest.raises(InputError, match=words):
        StreamHeader(**{**known, **change})


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


def changed(stream: bytes, **changes) -> bytes:
    """A stream with other values in its header."""
    header = StreamReader(io.BytesIO(stream)).header
    return replace(header, **changes).pack() + stream[len(header.pack()):]


def test_foreign_streams_are_named():
    stream = encode(tiny_codec(), clip(1, 16, 16))
    unknown = (1 << 30).to_bytes(4, "little")
    for data, message in (
            (b"\x89PNG" + stream, "no HyTIP stream"), (b"", "within its header"), (stream[:10], "within its header"),
            (stream[:3] + b"\2" + stream[4:], "version 2 is not 3, .*compress its source again"),
            (stream[:3] + b"\4" + stream[4:], "version 4 is not 3, .*use a newer program"),
            (stream[:8] + bytes((stream[8] ^ 1,)) + stream[9:], "header of the stream is damaged"),
            (resealed(stream, lambda head: head[:4] + b"\xff\xff\xff\x0f" + head[5:] + unknown), "newer one"),
            (changed(stream, fingerprint=bytes(8)), "other weights or configurations of --model hytip"),
            (changed(stream, tables=1), "tables differ")):
        with pytest.raises(StreamError, match=message) as caught:
            decode(tiny_codec(), data)
        assert "\n" not in str(caught.value)


def test_streams_of_other_models_say_which_flag_selects_it():
    model = tiny_codec().network("float32")
    small, full = (Codec(model, tiny_codec().arithmetic, name) for name in ("small", "full"))
    other = codec_of(seeded_model(model.config, salt=1))
    other.name, other.weights = "full", "MS-SSIM-RGB.pth.tar"
    with pytest.raises(StreamError, match="coded with --model small .codec hytip., and this is --model full "
                       "--weights MS-SSIM-RGB.pth.tar; give --model small$"):
        decode(other, encode(small, clip(1, 16, 16)))
    with pytest.raises(StreamError, match="give --model full --weights MS-SSIM-RGB.pth.tar$"):
        decode(full, encode(other, clip(1, 16, 16)))
    assert len(decode(full, encode(small, clip(1, 16, 16)))) == 1         # another name for the same weights


def test_large_frames_are_refused_before_any_work():
    codec = tiny_codec()
    header = StreamHeader(codec="hytip", width=100_000, height=100_000, gop=32, qp=0, intra_qp=0,
                          fingerprint=codec.fingerprint, tables=codec.tables.checksum())
    with pytest.raises(StreamError, match="100000x100000 .* raise --max_pixels"):
        decode(codec, header.pack())
    with pytest.raises(StreamError, match="64x64 take 4096 pixels with padding, more than 4095"):
        decode(codec, encode(codec, clip(1, 64, 64)), max_pixels=4095)


def test_a_payload_too_short_for_the_frame_is_refused_before_any_work(monkeypatch):
    """A kilobyte cannot ask for the work of a large frame."""
    codec = tiny_codec()
    header = StreamHeader(codec="hytip", width=3840, height=2160, gop=32, qp=0, intra_qp=0,
                          fingerprint=codec.fingerprint, tables=codec.tables.checksum())
    packet = Packet(number=0, intra=True, qp=0, payload=bytes(1000), symbols=0, pixels=0)
    monkeypatch.setattr(codec.network("float32"), "code_frame", lambda *_: pytest.fail("work was done"))
    with pytest.raises(StreamError, match="a payload of 1000 bytes is outside"):
        decode(codec, header.pack() + packet.pack(header) + pack_end(1))
