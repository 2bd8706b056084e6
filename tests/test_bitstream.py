"""Whole streams: what is decoded is what the encoder saw, and damage is told."""
import io
import os
import struct
import threading
import zlib
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stream_helpers import PLAN, clip, codec_of, decode, encode, encode_parts, tiny_codec, wild_codec

from helpers import STEPS, full_config, seeded_model
from models.entropy.stream import StreamError
from util.coding import reader
from util.coding.bitstream import SYNC, Packet, StreamHeader, pack_end, varint
from util.coding.decoding import StreamWarning
from util.coding.gop import CodingPlan
from util.coding.reader import StreamReader
from util.coding.session import to_pixels
from util.errors import InputError


def coded(codec, frames, plan=PLAN, **options):
    """The parts that hold frames, and the stream."""
    parts = encode_parts(codec, frames, plan, **options)
    return parts[1:-1], b"".join(part.data for part in parts)


def same(encoded, decoded) -> bool:
    """Bit for bit, in all that is known of a frame."""
    return (torch.equal(encoded.frame, decoded.frame) and encoded.header == decoded.header
            and encoded.number == decoded.number and encoded.sizes == decoded.sizes and decoded.matches
            and decoded.size == len(encoded.data) and torch.equal(encoded.coded.frame, decoded.coded.frame))


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
    assert [d.number for d in decoded if d.header.forget_feature] == [1, 7, 13, 17, 23, 29, 33, 39]


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
            (resealed(stream, poke(4, 0x13)), "arithmetic mode 3"), (resealed(stream, poke(5, 0)), "width 0"),
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


# Damage

def collect(stream: bytes, **options):
    """Frames up to the error, and the error."""
    frames = []
    try:
        for frame in tiny_codec().decode(io.BytesIO(stream), **options):
            frames.append(frame)
    except StreamError as error:
        return frames, str(error)
    return frames, None


def test_truncation_anywhere_gives_the_complete_frames_and_says_where_it_stopped():
    parts = encode_parts(tiny_codec(), clip(3, 16, 16))
    encoded, stream = parts[1:-1], b"".join(part.data for part in parts)
    ends = [sum(len(p.data) for p in parts[:n]) for n in range(1, 5)]
    for cut in range(ends[0], len(stream), 3):
        frames, error = collect(stream[:cut])
        complete = sum(cut >= end for end in ends[1:])
        assert len(frames) == complete and all(map(same, encoded, frames))
        assert f"after {complete} complete frames" in error and "\n" not in error


def test_flipped_bytes_are_found_at_once():
    parts = encode_parts(tiny_codec(), clip(3, 16, 16))
    stream, start = b"".join(part.data for part in parts), len(parts[0].data) + len(parts[1].data)
    for position in range(start, start + len(parts[2].data), 5):
        damaged = stream[:position] + bytes((stream[position] ^ 0x10,)) + stream[position + 1:]
        frames, error = collect(damaged)
        assert len(frames) == 1 and ("frame 2: " in error or "after 1 complete frames" in error)


def test_lost_repeated_and_foreign_packets_are_found():
    parts = [part.data for part in encode_parts(tiny_codec(), clip(5, 16, 16), CodingPlan(qp=1, intra_qp=1, gop=3))]
    head, i0, p1, p2, i3, p4, end = parts
    for packets, message, count in (
            ((i0, p2), "frame 2 is missing", 1), ((i0, i3), "frames 2 to 3 are missing", 1),
            ((p1,), "reference frame is missing", 0), ((i0, p1, p1), "frame 2 comes again", 2),
            ((i0, p1, end), "frames 3 to 5 are missing", 2), ((i0, p1, pack_end(1)), "counts 1 frames, but there", 2)):
        frames, error = collect(head + b"".join(packets))
        assert message in error and len(frames) == count


def test_keep_going_continues_at_the_next_intra_frame():
    plan = CodingPlan(qp=1, intra_qp=1, gop=4)
    parts = encode_parts(tiny_codec(), clip(10, 16, 16), plan)
    encoded = parts[1:-1]
    data = [part.data for part in parts]

    def check(stream: bytes, numbers: list[int], *messages: str):
        reports = []
        frames, error = collect(stream, keep_going=True, report=reports.append)
        assert error is None and [f.number for f in frames] == numbers
        assert all(same(encoded[f.number], f) for f in frames)
        assert len(reports) == len(messages)
        assert all(part in line for part, line in zip(messages, reports)), reports

    broken = bytearray(data[3])
    broken[-6] ^= 1
    everything = list(range(10))
    check(b"".join(data), everything)
    check(b"".join([*data[:3], broken, *data[4:]]), [0, 1, 4, 5, 6, 7, 8, 9], "frame 3: ", "frames 3 to 4 are missing")
    check(b"".join([*data[:3], data[3][:20], *data[4:]]), [0, 1, 4, 5, 6, 7, 8, 9], "frame 3: ", "3 to 4")
    check(b"".join([*data[:3], b"x" * 9000, *data[3:]]), [0, 1, 4, 5, 6, 7, 8, 9], "frame 3: ", "3 to 4")
    check(b"".join([data[0], *data[2:]]), [4, 5, 6, 7, 8, 9], "frames 1 to 4 are missing")
    check(b"".join([*data[:3], *data[4:]]), [0, 1, 4, 5, 6, 7, 8, 9], "frame 3: frame 3 is missing", "3 to 4")
    check(b"".join([*data[:3], data[2], *data[3:]]), everything, "frame 2 comes again")
    check(b"".join(data[:8]), everything[:7], "after 7 complete frames")
    check(b"".join(data)[:-12], everything[:9], "after 9 complete frames")
    check(b"".join([*data[:9], b"noise", *data[10:]]), everything[:8], "frame 9: ", "frames 9 to 10 are missing")
    check(b"".join([*data[:9], b"noise"]), everything[:8], "frame 9: ", "after frame 8")


def test_damage_without_end_is_given_up():
    stream = encode(tiny_codec(), clip(1, 16, 16))
    reports = []
    frames, error = collect(stream[:-9] + SYNC * 5000, keep_going=True, report=reports.append)
    assert len(frames) == 1 and error is None and "more than 1000 places" in reports[-1]


def copy_of(codec):
    """The same codec with networks of its own."""
    model = seeded_model(codec.network("float32").config)
    model.load_state_dict(codec.network("float32").state_dict())
    return codec_of(model)


@pytest.mark.parametrize("portable", [False, True])
def test_diverging_symbols_stop_the_decoder_at_the_first_bad_frame(portable):
    encoded, stream = coded(wild_codec(), clip(4, 48, 64), portable=portable)
    other = copy_of(wild_codec())
    with torch.no_grad():                                           # what another device does, only more so
        for value in other.network("float64" if portable else "float32").inter.parameters():
            value.mul_(1 + 1e-5)
    frames = []
    with pytest.raises(StreamError) as caught:
        for frame in other.decode(io.BytesIO(stream), report=lambda _: None):
            frames.append(frame)
    error = str(caught.value)
    assert error.startswith(f"frame {len(frames) + 1}: ") and 1 <= len(frames) < 4
    assert ("--portable" in error and "coded in float32 on cpu" in error) != portable
    assert torch.equal(frames[0].frame, encoded[0].frame)


@pytest.mark.parametrize("portable", [False, True])
def test_equal_symbols_but_another_frame_is_a_warning_or_an_error(portable):
    _, stream = coded(tiny_codec(), clip(3, 32, 32), portable=portable)
    other = copy_of(tiny_codec())
    with torch.no_grad():                                           # comes after all symbols of the I-frame
        other.network("float64" if portable else "float32").intra.refine[1].bias.add_(0.01)
    if portable:
        with pytest.raises(StreamError, match="frame 1: the decoded frame is not that of the encoder"):
            decode(other, stream)
    else:
        with pytest.warns(StreamWarning, match="frame 1, and perhaps later ones, differ slightly"):
            frame = next(iter(other.decode(io.BytesIO(stream))))
        assert not frame.matches
