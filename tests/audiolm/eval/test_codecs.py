"""Other codecs: Opus, a tiny random EnCodec, and programs that speak as Lyra's do."""

import sys

import numpy as np
import pytest
from heard import RATE, speech

from audiolm.errors import InputError
from audiolm.eval.codecs import LYRA_RATES, OPUS_RATES, opus_peer, peer, resampled
from audiolm.eval.distances import si_sdr
from audiolm.eval.reconstruction import measure

SPEECH = speech(2, 1)
ENCODER = '''#!{python}
"""Keeps the sound, 30 samples late, and fills up to the bit rate."""
import sys, wave
from pathlib import Path
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
assert Path(given["model_path"]).name == "model_coeffs", given
source = Path(given["input_path"])
with wave.open(str(source)) as file:
    assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (16000, 2, 1)
    data = file.readframes(file.getnframes())
seconds = len(data) / 32000
(Path(given["output_dir"]) / (source.stem + ".lyra")).write_bytes(bytes(int(int(given["bitrate"]) * seconds / 8)))
(Path(given["output_dir"]) / "kept").write_bytes(bytes(60) + data)
'''
DECODER = """#!{python}
import sys, wave
from pathlib import Path
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
out, coded = Path(given["output_dir"]), Path(given["encoded_path"])
assert coded.stat().st_size
with wave.open(str(out / (coded.stem + "_decoded.wav")), "wb") as file:
    file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
    file.writeframes((out / "kept").read_bytes())
"""


def program(path, text):
    path.write_text(text.replace("{python}", sys.executable))
    path.chmod(0o755)


@pytest.fixture
def lyra_folder(tmp_path):
    (tmp_path / "model_coeffs").mkdir()
    program(tmp_path / "encoder_main", ENCODER)
    program(tmp_path / "decoder_main", DECODER)
    return tmp_path


def test_opus_has_our_rates_and_the_next_two():
    assert opus_peer().rates == OPUS_RATES == (6000, 12000, 24000)
    made, rate = opus_peer().code(SPEECH, 24000)
    assert len(made) == len(SPEECH)
    assert 18_000 < rate < 32_000


def test_there_and_back_at_another_rate_is_the_same_sound():
    wide = resampled(SPEECH, RATE, 24000)
    assert abs(len(wide) - 1.5 * len(SPEECH)) <= 2
    back = resampled(wide, 24000, RATE)[: len(SPEECH)]
    assert si_sdr(SPEECH[: len(back)], back) > 30


def test_lyra_is_called_as_its_programs_want_and_its_delay_is_found(lyra_folder):
    coded = peer(f"lyra={lyra_folder}")
    assert coded.rates == LYRA_RATES
    made, rate = coded.code(SPEECH, 6000)
    assert rate == pytest.approx(6000, rel=0.01)
    values, lag = measure([(SPEECH, made)], ["si_sdr"])
    assert lag == 30
    assert values["si_sdr"][0] > 50


def test_a_program_that_fails_is_told_with_its_last_words(lyra_folder):
    program(lyra_folder / "decoder_main", "#!{python}\nimport sys\nsys.exit('bad model')\n")
    with pytest.raises(InputError, match=r"decoder_main ended with code 1 \(bad model\)"):
        peer(f"lyra={lyra_folder}").code(SPEECH, 3200)
    program(lyra_folder / "encoder_main", "#!{python}\n")
    with pytest.raises(InputError, match=r"made no sound\.lyra"):
        peer(f"lyra={lyra_folder}").code(SPEECH, 3200)
    (lyra_folder / "encoder_main").chmod(0o644)
    with pytest.raises(InputError, match="cannot be run"):
        peer(f"lyra={lyra_folder}").code(SPEECH, 3200)


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="expected encodec=FOLDER or lyra=FOLDER"):
        peer("mp3=here")
    with pytest.raises(InputError, match="expected encodec=FOLDER"):
        peer("encodec")
    with pytest.raises(InputError, match="there is no folder"):
        peer(f"lyra={tmp_path / 'no'}")
    with pytest.raises(InputError, match="lacks encoder_main, decoder_main"):
        peer(f"lyra={tmp_path}")
    with pytest.raises(InputError, match="transformers"):
        peer(f"encodec={tmp_path}")


@pytest.fixture
def tiny_encodec():
    """A factory of folders with a random EnCodec; the settings go to its config."""
    library = pytest.importorskip("transformers")

    def make(folder, **settings):
        size = {"num_filters": 2, "num_lstm_layers": 1, "hidden_size": 8, "codebook_size": 16}
        config = library.EncodecConfig(**size, target_bandwidths=[1.5, 3.0], **settings)
        library.EncodecModel(config).save_pretrained(folder)
        return folder

    return make


def test_encodec_is_read_from_its_folder(tiny_encodec, tmp_path):
    coded = peer(f"encodec={tiny_encodec(tmp_path)}")
    assert coded.rates == [1500, 3000]
    for nominal in coded.rates:
        made, rate = coded.code(SPEECH, nominal)
        assert abs(len(made) - len(SPEECH)) <= 2
        assert np.isfinite(made).all()
        assert rate == pytest.approx(nominal, rel=0.02)


def test_an_encodec_of_two_channels_is_refused(tiny_encodec, tmp_path):
    with pytest.raises(InputError, match="expected a mono model"):
        peer(f"encodec={tiny_encodec(tmp_path, audio_channels=2)}")
