"""The codec from Python: whatever forms frames and streams come in, files, and sentences for what is wrong."""
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from stream_helpers import clip, codec_of, decode, encode, tiny_codec
from video_helpers import facts, make_video, sound_packets

from dataloader.source import PngFolder
from helpers import ROOT
from util.coding.codec import Codec, CodingPlan
from util.errors import InputError

FRAMES = clip(3, 24, 40)


def test_frames_in_every_form_give_the_same_stream(tmp_path):
    expected = encode(tiny_codec(), FRAMES)
    arrays = [frame.numpy() for frame in FRAMES]
    last = [np.ascontiguousarray(array.transpose(1, 2, 0)) for array in arrays]
    for given in (arrays, last, np.stack(arrays), np.stack(last), torch.stack(FRAMES), iter(last), (x for x in FRAMES),
                  [frame.permute(1, 2, 0) for frame in FRAMES]):
        assert encode(tiny_codec(), given) == expected
        if isinstance(given, list):
            assert encode(tiny_codec(), given, 42) == expected              # a QP for both kinds of frames


def test_streams_in_every_form(tmp_path):
    stream = encode(tiny_codec(), FRAMES)
    (tmp_path / "a.hyt").write_bytes(stream)
    expected = [frame.pixels for frame in decode(tiny_codec(), stream)]
    for given in (stream, bytearray(stream), tmp_path / "a.hyt", str(tmp_path / "a.hyt")):
        assert all(map(torch.equal, tiny_codec().decompress(given), expected))


def test_files_to_files(tmp_path):
    path = make_video(tmp_path / "a.mp4", encoder="libx264", rate=Fraction(30000, 1001), tags=(6, 5, 6, 1), sound="aac")
    done = []
    codec = tiny_codec()
    assert codec.encode_file(path, tmp_path / "a.hyt", 42, progress=lambda n, total: done.append((n, total))) == 4
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert codec.decode_file(tmp_path / "a.hyt", tmp_path / "b.mp4", sound=path) == 4
    assert facts(tmp_path / "b.mp4") == facts(path) and sound_packets(tmp_path / "b.mp4") == sound_packets(path)
    with pytest.raises(InputError):
        codec.encode_file(tmp_path / "none.mp4", tmp_path / "c.hyt", 42)
    assert not (tmp_path / "c.hyt").exists()


def test_varying_times_pass_through_a_stream(tmp_path):
    stamps = [1500, 4500, 10500, 11500, 30000]
    path = make_video(tmp_path / "a.mp4", encoder="libx264", time_base=Fraction(1, 90000), stamps=stamps, frames=5)
    tiny_codec().encode_file(path, tmp_path / "a.hyt", 10)
    tiny_codec().decode_file(tmp_path / "a.hyt", tmp_path / "b.mp4")
    assert facts(tmp_path / "b.mp4")["times"] == facts(path)["times"]


@pytest.mark.parametrize("frames, words", [
    (FRAMES[0], "the frames have the shape (3, 24, 40); give (N, 3, H, W)"),
    ([FRAMES[0] / 255], "frame 1 is a float32 tensor of shape (3, 24, 40); frames are uint8, 0 to 255; multiply by"),
    ([FRAMES[0].numpy().astype(np.int64)], "frame 1 is a int64 array of shape (3, 24, 40); frames are uint8"),
    ([FRAMES[0], "x"], "frame 2 is of type str; frames are tensors or NumPy arrays"),
    ([FRAMES[0][:2]], "frame 1 is a uint8 tensor of shape (2, 24, 40); frames are RGB"),
    ([FRAMES[0], FRAMES[0][:, :16]], "frame 2 is 40x16, but frame 1 is 40x24"),
    (7, "frames of type int cannot be encoded"), (b"abc", "frames of type bytes cannot be encoded"),
    ("nowhere.mp4", "nowhere.mp4 does not exist")])
def test_wrong_frames_end_in_a_sentence(frames, words):
    with pytest.raises(InputError, match=re.escape(words)):
        encode(tiny_codec(), frames)


@pytest.mark.parametrize("stream, words", [(7, "a stream of type int cannot be decoded"),
                                           ("nowhere.hyt", "stream nowhere.hyt cannot be read")])
def test_wrong_streams_end_in_a_sentence(stream, words):
    with pytest.raises(InputError, match=words):
        tiny_codec().decode(stream)


def test_parameters_are_there_and_the_intra_rate_follows():
    assert sum(p.numel() for p in tiny_codec().model.parameters()) > 1000
    assert CodingPlan(qp=17).intra_qp == 17 and CodingPlan(qp=17, intra_qp=3).intra_qp == 3


def test_a_stream_of_one_thread_decodes_in_a_process_of_two():
    codec = codec_of(tiny_codec().model)
    assert torch.get_num_threads() == 1
    stream = encode(codec, clip(6, 48, 64))
    torch.set_num_threads(2)
    seen, forward = [], codec.model.code_frame

    def watched(*arguments):
        seen.append(torch.get_num_threads())
        return forward(*arguments)
    codec.model.code_frame = watched
    try:
        assert all(frame.matches for frame in decode(codec, stream))
        assert set(seen) == {1} and torch.get_num_threads() == 2
        told = Codec(tiny_codec().model, codec.arithmetic, threads=2)
        told.model.code_frame = watched
        seen.clear()
        list(told.decode(stream, report=lambda line: None))
        assert set(seen) == {2}
    finally:
        del codec.model.code_frame


def test_the_error_says_which_threads_differ():
    codec = Codec(tiny_codec().model, tiny_codec().arithmetic, threads=2)
    header = codec.decode(encode(tiny_codec(), FRAMES)).header
    cause = codec.session(header).cause()
    assert cause.startswith("it was encoded with 1 thread, and this has 2 (--threads 1 decodes it)")
    assert "--portable" in cause


SNIPPETS = [(path.name, n, code) for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
            for n, code in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE))]


@pytest.mark.parametrize("code", [pytest.param(code, id=f"{name}-{n}") for name, n, code in SNIPPETS
                                  if "Codec.load" in code])
def test_snippets_run_as_pasted(code, monkeypatch, tmp_path):
    """With the small model on the first frames of the bundled clip, so that it takes seconds."""
    count = PngFolder._count
    monkeypatch.setattr(PngFolder, "_count", lambda *arguments: min(2, count(*arguments)))
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    monkeypatch.chdir(tmp_path)                                     # what they write must not stay
    exec(compile(code, "snippet", "exec"), {"__name__": "__main__"})


def test_there_are_snippets():
    assert any("Codec.load" in code for _, _, code in SNIPPETS)
