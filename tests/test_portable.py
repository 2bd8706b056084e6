"""Portable streams: fast float64, golden files, and decoders on other instruction sets and devices."""
import io
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from stream_helpers import clip, codec_of, decode, encode, encode_parts, tiny_codec, wild_codec
from torch import nn

from helpers import ROOT, TINY, tiny_config
from models.entropy.stream import StreamDecoder, StreamEncoder
from models.layers.float64 import FastConv2d, use_fast_float64
from util.checkpoint import save_model
from util.coding.bitstream import Packet, pack_end, short
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.reader import StreamReader
from util.video import ColorTags, Timed, VideoFacts

STREAMS = Path(__file__).parent / "data" / "streams"
GOLDEN = {name: STREAMS / f"{name}.hyt" for name in ("tiny", "wild")}
INSTRUCTION_SETS = {"AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
                    "SSE41": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41",
                              "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
                    "same": {}}


FACTS = VideoFacts(Fraction(30000, 1001), ColorTags(1, "limited", 1, 1, True), Fraction(1, 90000), -1500,
                   Fraction(16, 15))


def golden_codec(name: str) -> Codec:
    return {"tiny": tiny_codec, "wild": wild_codec}[name]()


def golden_stream(name: str) -> bytes:
    """How the files were made: every frame type, a reset, a scene cut, an odd size, times that vary, every field.

    The wild model multiplies any difference by about 30 from frame to frame, so its GOPs are short.
    """
    plan = CodingPlan(qp=10, intra_qp=50, gop=10 if name == "tiny" else 4, reset_interval=5 if name == "tiny" else 2,
                      scene_cuts=frozenset({8}))
    frames = [Timed(frame, FACTS.expected(n) + 700 * (n % 3 - 1)) for n, frame in enumerate(clip(12, 33, 47))]
    return encode(golden_codec(name), frames, plan, portable=True, facts=FACTS)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_streams_decode(name):
    """The streams check themselves, symbols and 8-bit frames. A change is a new version of the format."""
    data = GOLDEN[name].read_bytes()
    frames = decode(golden_codec(name), data)
    assert StreamReader(io.BytesIO(data)).header.facts == FACTS
    assert [f.stamp for f in frames] == [FACTS.expected(n) + 700 * (n % 3 - 1) for n in range(12)]
    assert [f.number for f in frames] == list(range(12))
    assert [f.number for f in frames if f.header.intra] == ([0, 8, 10] if name == "tiny" else [0, 4, 8])
    assert {f.header.frame_type for f in frames} == {0, 1, 2} and any(f.header.refresh for f in frames)


class Transcoder:
    """Writes the symbols that it reads."""

    def __init__(self, tables, payload):
        self.reader, self.writer = StreamDecoder(tables, payload), StreamEncoder(tables)

    def code(self, residual, scale, distribution, name):
        return self.writer.code(self.reader.code(None, scale, distribution, name), scale, distribution, name)

    def code_z(self, z, prior, size, name):
        return self.writer.code_z(self.reader.code_z(None, prior, size, name), prior, size, name)


@pytest.mark.parametrize("name", GOLDEN)
@torch.inference_mode()
def test_golden_streams_encode_to_the_same_bytes_from_their_symbols(name):
    codec, data = golden_codec(name), GOLDEN[name].read_bytes()
    reader = StreamReader(io.BytesIO(data))
    session, memory, written = codec.session(reader.header), None, [reader.header.pack()]
    while isinstance(packet := reader.next_packet(session.bounds), Packet):
        coder = Transcoder(codec.tables, packet.payload)
        header = packet.header(reader.header.aligned)
        memory = codec.network("float64").code_frame(coder, None, memory, header).memory
        payload = coder.writer.payload().ljust(session.bounds(packet.intra)[0], b"\0")
        written.append(replace(packet, payload=payload, symbols=short(coder.writer.checksum)).pack(reader.header))
    assert b"".join([*written, pack_end(packet)]) == data


@pytest.mark.parametrize("inputs, outputs, kernel, stride, groups, bias", [
    (3, 5, 1, 1, 1, True), (4, 6, 3, 1, 1, True), (4, 6, 3, 2, 1, False), (6, 6, 3, 1, 6, True), (2, 4, 5, 4, 1, True),
    (8, 4, 7, 1, 1, True), (4, 8, 1, 2, 1, True), (6, 6, 3, 1, 6, False), (4, 4, 3, 1, 2, True)])
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (16, 17)])
def test_fast_convolutions_equal_those_of_pytorch(inputs, outputs, kernel, stride, groups, bias, size, monkeypatch):
    monkeypatch.setattr("models.layers.float64.BAND", 100)          # several bands
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
    fast = nn.Sequential(conv)
    x = torch.randn(2, inputs, *size)
    single = conv(x)
    use_fast_float64(fast)
    assert type(conv) is FastConv2d and torch.equal(fast(x), single)
    conv.double()
    expected = nn.functional.conv2d(x.double(), conv.weight, conv.bias, stride, kernel // 2, groups=groups)
    with torch.no_grad():
        torch.testing.assert_close(fast(x.double()), expected, rtol=1e-13, atol=1e-13)


def test_portable_networks_leave_the_others_alone():
    codec = codec_of(tiny_codec().network("float32"))
    before = encode(codec, clip(3, 32, 32))
    portable = encode_parts(codec, clip(3, 32, 32), portable=True)
    assert encode(codec, clip(3, 32, 32)) == before
    assert all(part.frame.dtype == torch.float64 for part in portable if part.number is not None)
    decoded = decode(codec, b"".join(part.data for part in portable))     # no flag: the stream says so
    assert all(torch.equal(a.frame, b.frame) for a, b in zip([p for p in portable if p.number is not None], decoded))


DECODER = """
import sys, warnings
warnings.filterwarnings("ignore", message=".*torch.jit.*")
from util.coding.bitstream import Packet, pack_end
from util.coding.codec import Codec
from util.errors import InputError
tiny, device, weights, *streams = sys.argv[1:]
codec = Codec.load(f"{tiny}/hytip.yml", weights=weights, device=device, threads=1)
for stream in streams:
    print("stream")
    try:
        with open(stream, "rb") as file:
            for frame in codec.decompress(file, report=lambda message: print("warning", message)):
                print(frame.numpy().tobytes().hex())
    except InputError as error:
        print("error", error)
"""
PORTABLE, PLAIN = 0, 1


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, list[Path], list[list[str]]]:
    """Weights, a portable and a plain stream, and the frames of both."""
    folder = tmp_path_factory.mktemp("portable")
    codec, streams, frames = wild_codec(), [], []
    weights = folder / "weights.pth.tar"
    assert codec.network("float32").config == tiny_config()
    save_model(codec.network("float32"), weights)
    for portable in (True, False):
        plan = CodingPlan(qp=42, intra_qp=42, gop=4 if portable else 8)        # a control that fails in frame 5 or 7
        data = encode(codec, clip(8, 48, 64), plan, portable=portable)
        streams.append(folder / f"{portable}.hyt")
        streams[-1].write_bytes(data)
        frames.append([frame.numpy().tobytes().hex() for frame in codec.decompress(io.BytesIO(data))])
        assert len(frames[-1]) == 8
    return weights, streams, frames


@pytest.fixture(scope="module")
def elsewhere(written):
    """What a process prints for each stream that has nothing but weights, configuration and streams."""
    weights, streams, _ = written

    @lru_cache(maxsize=8)
    def run(name: str, device: str = "cpu") -> list[list[str]]:
        result = subprocess.run([sys.executable, "-c", DECODER, TINY, device, weights, *streams], cwd=ROOT,
                                env={**os.environ, **INSTRUCTION_SETS[name]}, capture_output=True, text=True,
                                timeout=120)
        assert result.returncode == 0, result.stderr
        return [part.split("\n")[1:-1] for part in result.stdout.split("stream")[1:]]
    return run


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_other_instruction_sets_decode_portable_streams(written, elsewhere, name):
    assert elsewhere(name)[PORTABLE] == written[2][PORTABLE]


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_other_instruction_sets_decode_plain_streams_right_or_say_so(written, elsewhere, name):
    lines, frames = elsewhere(name)[PLAIN], written[2][PLAIN]
    if lines[-1].startswith("error"):
        assert f"frame {sum(not line.startswith('warning') for line in lines)}: " in lines[-1]
        assert "--portable" in lines.pop()
    warned = [n for n, line in enumerate(lines) if line.startswith("warning")]
    right = warned[0] if warned else len(lines)
    assert lines[:right] == frames[:right]


def test_a_process_with_only_stream_and_weights_decodes(written, elsewhere):
    assert elsewhere("same") == written[2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_decodes_portable_streams_of_the_cpu(written, elsewhere):
    assert elsewhere("same", "cuda")[PORTABLE] == written[2][PORTABLE]
