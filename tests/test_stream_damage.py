"""Streams that were cut, changed or forged, and decoders that compute something else: all of it is told."""
import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from stream_helpers import clip, codec_of, coded, decode, encode, encode_parts, same, tiny_codec, wild_codec

from helpers import seeded_model
from models.entropy import stream as stream_coder
from models.entropy.stream import StreamError
from util.coding.bitstream import SYNC, Packet, pack_end
from util.coding.decoding import StreamWarning
from util.coding.gop import CodingPlan
from util.coding.reader import StreamReader


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
    frames, error = collect(stream[:-len(pack_end(1))] + SYNC * 5000, keep_going=True, report=reports.append)
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
        for name, value in other.network("float64" if portable else "float32").inter.named_parameters():
            value.mul_(1 if "bit_estimator" in name else 1 + 1e-5)          # tables are equal on all devices
    frames = []
    with pytest.raises(StreamError) as caught:
        for frame in other.decode(io.BytesIO(stream), report=lambda _: None):
            frames.append(frame)
    error = str(caught.value)
    assert error.startswith(f"frame {len(frames) + 1}: ") and 1 <= len(frames) < 4
    assert ("--portable" in error and "encoded on such a machine as this" in error) != portable
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


def packets_of(stream: bytes) -> list[Packet]:
    """All packets of a stream of the tiny codec."""
    reader = StreamReader(io.BytesIO(stream))
    bounds = tiny_codec().session(reader.header).bounds
    return list(itertools.takewhile(lambda p: isinstance(p, Packet), iter(lambda: reader.next_packet(bounds), None)))


def repacked(stream: bytes, number: int, **changes) -> bytes:
    """The stream with something else in one packet, whose own checksum is right."""
    packets = packets_of(stream)
    packets[number] = replace(packets[number], **changes)
    header = StreamReader(io.BytesIO(stream)).header
    return b"".join([header.pack(), *(packet.pack(header) for packet in packets), pack_end(len(packets))])


@pytest.mark.parametrize("portable", [False, True])
def test_other_symbols_than_the_encoder_counted_are_an_error(portable):
    _, stream = coded(tiny_codec(), clip(3, 32, 32), portable=portable)
    frames, error = collect(repacked(stream, 1, symbols=12345))
    assert len(frames) == 1 and "frame 2: the decoded symbols are not those of the encoder; " in error


def test_a_code_with_more_than_its_symbols_is_an_error(monkeypatch):
    pack = stream_coder._pack
    more = [(np.arange(8, dtype=np.int32) % 3, tiny_codec().tables["iy"].models[30])]
    with monkeypatch.context() as patch:
        patch.setattr(stream_coder, "_pack", lambda calls: (pack([*calls, more])[0], pack(calls)[1]))
        stream = encode(tiny_codec(), clip(1, 32, 32))
    frames, error = collect(stream)
    assert not frames and "frame 1: its code holds more than its symbols; " in error


@pytest.mark.parametrize("portable", [False, True])
def test_another_frame_than_the_encoder_saw_is_a_warning_or_an_error(portable):
    _, stream = coded(tiny_codec(), clip(3, 32, 32), portable=portable)
    reports = []
    frames, error = collect(repacked(stream, 1, pixels=12345), report=reports.append)
    if portable:
        assert len(frames) == 1 and "frame 2: the decoded frame is not that of the encoder; " in error
    else:
        assert [f.matches for f in frames] == [True, False, True] and error is None
        assert len(reports) == 1 and "frame 2, and perhaps later ones, differ slightly" in reports[0]


@pytest.mark.parametrize("portable", [False, True])
def test_a_frame_that_is_not_finite_is_an_error(portable):
    codec = copy_of(tiny_codec())
    _, stream = coded(tiny_codec(), clip(1, 32, 32), portable=portable)
    with torch.no_grad():                                           # comes after all symbols
        codec.network("float64" if portable else "float32").intra.refine[1].bias.fill_(torch.nan)
    with pytest.raises(StreamError, match="frame 1: the decoded frame is not finite"):
        decode(codec, stream)
    with pytest.raises(StreamError, match="not finite"):
        encode(codec, clip(1, 32, 32), portable=portable)
