"""Sound files: every kind in, equal files out, nothing half-written, clear refusals."""

import hashlib
import os

import numpy as np
import pytest
import soundfile

from audiolm import io
from audiolm.errors import InputError
from audiolm.io import MARK, AudioReader, AudioWriter, Metadata, probe, read_audio, read_blocks, write_audio
from audiolm.resample import Resampler


def tone(rate=16000, seconds=0.5, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-22),
        ("a.wav", "PCM_U8", 2**-6),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "DOUBLE", 0),
        ("a.flac", "PCM_16", 2**-15),
        ("a.flac", "PCM_24", 2**-22),
        ("a.ogg", "VORBIS", 0.05),
        ("a.opus", "OPUS", 0.05),
    ],
)
def test_every_encoding_is_read(tmp_path, name, subtype, tolerance):
    path = tmp_path / name
    soundfile.write(path, tone(), 16000, subtype, format="OGG" if subtype in ("VORBIS", "OPUS") else None)
    got = read_audio(path)
    assert got.dtype == np.float32
    assert abs(len(got) - 8000) <= 1
    np.testing.assert_allclose(got[500:7500], tone()[500:7500], atol=tolerance)


def test_stereo_is_down_mixed_and_said(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([tone(), np.zeros(8000, np.float32)], 1), 16000, "FLOAT")
    reader = AudioReader(path)
    np.testing.assert_allclose(np.concatenate(list(reader.blocks())), tone() / 2, atol=1e-7)
    assert reader.notes == ["down-mixed 2 channels"]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_any_rate_is_resampled_and_said(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(rate), rate, "FLOAT")
    reader = AudioReader(path)
    got = np.concatenate(list(reader.blocks()))
    assert reader.notes == [f"resampled {rate} -> 16000 Hz"]
    assert abs(len(got) - reader.length) <= 1
    np.testing.assert_allclose(got[800:7000], tone()[800:7000], atol=2e-3)


def test_the_pieces_in_which_libsndfile_reads_do_not_matter(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(44100), 44100)
    whole = read_audio(path)
    samples = soundfile.read(path, dtype="float32")[0]
    resampler = Resampler(44100)
    pieces = [b for piece in np.array_split(samples, 7) for b in resampler.push(piece)] + resampler.finish()
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_samples_a_resampler_would_smear_are_made_harmless_and_said(tmp_path):
    samples = tone(48000)
    samples[1000:1003] = np.nan
    samples[2000] = np.inf
    samples[3000] = 1e30
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 48000, "FLOAT")
    reader = AudioReader(path)
    got = np.concatenate(list(reader.blocks()))
    assert np.isfinite(got).all()
    assert np.abs(got).max() < 1.5
    assert reader.notes[1:] == ["4 samples not finite, set to 0", "1 samples beyond full scale, clamped"]


def test_without_resampling_bad_samples_are_left_to_the_door(tmp_path):
    samples = tone()
    samples[100] = np.nan
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 16000, "FLOAT")
    assert np.isnan(read_audio(path)[100])


def test_blocks_are_small_and_can_be_limited_and_read_again(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(seconds=2), 16000)
    assert max(map(len, read_blocks(path))) <= 320
    reader = AudioReader(path, limit=1001)
    first, second = (np.concatenate(list(reader.blocks())) for _ in range(2))
    assert len(first) == reader.length == 1001
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, read_audio(path)[:1001])


def test_probe_tells_what_is_inside(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((44100, 2)), 44100)
    info = probe(path)
    assert (info.rate, info.channels, info.frames, info.seconds, info.encoding) == (44100, 2, 44100, 1, "FLAC PCM_16")


def missing(folder):
    return folder / "none.wav"


def is_folder(folder):
    return folder


def empty(folder):
    path = folder / "empty.wav"
    path.touch()
    return path


def header_only(folder):
    path = folder / "header.wav"
    soundfile.write(path, np.zeros(0), 16000)
    return path


def one_sample(folder):
    path = folder / "one.wav"
    soundfile.write(path, np.zeros(1), 16000)
    return path


def text(folder):
    path = folder / "text.wav"
    path.write_text("this is not sound\n" * 100)
    return path


def cut_header(folder):
    path = folder / "cut.flac"
    soundfile.write(path, tone(), 16000)
    path.write_bytes(path.read_bytes()[:20])
    return path


def raw(folder):
    path = folder / "a.raw"
    path.write_bytes(bytes(32000))
    return path


def pipe(folder):
    path = folder / "pipe.wav"
    os.mkfifo(path)
    return path


def absurd_rate(folder):
    path = folder / "slow.wav"
    soundfile.write(path, np.zeros(16000), 10)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing, "no such file.*give a"),
        (is_folder, "is a folder"),
        (empty, "empty.*0 bytes"),
        (header_only, "no samples"),
        (one_sample, "too short: 1 samples.*at least 40 ms"),
        (text, "cannot be read as sound.*WAV, FLAC or Ogg"),
        (cut_header, "cannot be read as sound"),
        (raw, "no header.*pcm_in"),
        (pipe, "not a regular file.*pcm_in"),
        (absurd_rate, "10 samples a second; expected 1000"),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_call(tmp_path, make, words):
    path = make(tmp_path)
    with pytest.raises(InputError, match=words):
        read_blocks(path)
    with pytest.raises(InputError, match=words):
        read_audio(path)


def test_a_file_damaged_further_in_is_refused_or_read_short(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 32000), 16000)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    try:
        got = read_audio(path)
    except InputError as error:
        assert "a.flac" in str(error)  # noqa: PT017
    else:
        assert 0 < len(got) < 32000


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_writing_and_reading_16_bits_changes_nothing(tmp_path, suffix):
    values = np.array([-32768, -32767, -1, 0, 1, 32767] * 200, np.int16)
    path = write_audio(tmp_path / f"a{suffix}", values)
    np.testing.assert_array_equal(soundfile.read(path, dtype="int16")[0], values)
    again = write_audio(tmp_path / f"b{suffix}", read_audio(path))
    assert digest(path) == digest(again)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus"])
def test_equal_sound_gives_equal_files_whatever_the_chunking(tmp_path, suffix):
    settings = {"bundle": "tiny", "seed": 1, "seconds": 2.5, "voice": None}
    samples = tone(seconds=2.34)
    write_audio(tmp_path / f"a{suffix}", samples, settings)
    with AudioWriter(tmp_path / f"b{suffix}", settings) as writer:
        for piece in np.array_split(samples, 61):
            writer.write(piece)
    assert writer.samples == len(samples)
    assert digest(tmp_path / f"a{suffix}") == digest(tmp_path / f"b{suffix}")
    assert len(read_audio(tmp_path / f"a{suffix}")) == pytest.approx(len(samples), abs=1)
    assert io.read_metadata(tmp_path / f"b{suffix}") == Metadata(MARK, settings)


def test_a_long_ogg_is_written_and_read_whole(tmp_path):
    path = write_audio(tmp_path / "a.ogg", tone(seconds=30))
    assert len(read_audio(path)) == 30 * 16000


def test_metadata_survives_every_character(tmp_path):
    settings = {"name": 'ä "quoted" \n \\ 音', "list": "a,b", "x": 0.1}
    path = write_audio(tmp_path / "a.wav", tone(), settings)
    assert io.read_metadata(path).settings == settings


def test_sounds_from_elsewhere_have_no_mark(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), 16000)
    assert io.read_metadata(path) == Metadata("", {})
    with soundfile.SoundFile(path, "w", 16000, 1) as file:
        file.title, file.comment = MARK, "not json"
        file.write(tone())
    assert io.read_metadata(path) == Metadata(MARK, {})


def test_a_file_holds_neither_time_nor_path(tmp_path):
    path = write_audio(tmp_path / "secretly.wav", tone(), {"seed": 1})
    assert str(tmp_path).encode() not in path.read_bytes()
    assert b"secretly" not in path.read_bytes()


def test_nothing_half_written_is_left(tmp_path):
    target = tmp_path / "a.wav"
    write_audio(target, tone())
    before = digest(target)

    def broken():
        with AudioWriter(target) as writer:
            writer.write(tone())
            assert digest(target) == before
            raise RuntimeError("the model broke")

    with pytest.raises(RuntimeError, match="the model broke"):
        broken()
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert digest(target) == before


def test_abort_finish_and_write_after_the_end(tmp_path):
    writer = AudioWriter(tmp_path / "a.wav")
    writer.write(tone())
    assert writer.finish() == writer.finish() == tmp_path / "a.wav"
    writer.abort()
    assert len(read_audio(tmp_path / "a.wav")) == 8000
    with pytest.raises(InputError, match="closed already"):
        writer.write(tone())


def test_bad_samples_are_made_harmless(tmp_path):
    path = write_audio(tmp_path / "a.wav", np.array([np.nan, np.inf, -np.inf, 5, -5], np.float32))
    got = soundfile.read(path, dtype="int16")[0]
    np.testing.assert_array_equal(got, [0, 32767, -32768, 32767, -32768])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.mp4", "suffix '.mp4'; expected one of .wav"),
        ("plain", "suffix ''"),
        ("none/a.wav", "no such folder.*mkdir -p"),
        ("folder.wav", "is a folder"),
    ],
)
def test_bad_output_names_are_refused_before_anything_is_made(tmp_path, name, words):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(InputError, match=words):
        AudioWriter(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.wav"]


def test_odd_rates_and_too_much_metadata_are_refused(tmp_path):
    with pytest.raises(InputError, match="at 12345 Hz"):
        AudioWriter(tmp_path / "a.opus", rate=12345)
    with pytest.raises(InputError, match="at most 1900"):
        AudioWriter(tmp_path / "a.wav", {"x": "y" * 2000})
    with pytest.raises(InputError, match="one channel"):
        write_audio(tmp_path / "a.wav", np.zeros((2, 5), np.float32))
    assert not list(tmp_path.iterdir())


def test_nothing_is_imported_before_it_is_used():
    import subprocess
    import sys

    code = "import sys, audiolm.io, audiolm.resample; print([m for m in ('soundfile', 'soxr') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
