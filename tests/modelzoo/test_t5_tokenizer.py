"""T5's tokenizer from a folder that has `tokenizer.json` and no SentencePiece model, as transformers writes it."""

import io
import json

import pytest
from sentencepiece import SentencePieceTrainer

from easytransfer.errors import ModelError
from modelzoo.t5.tokenizer import T5Tokenizer

LINES = [
    "Ein süßer Bär aß große Äpfel.",
    "The quick brown fox — ﬁne!",
    "我喜欢看电影，2024年",
    "tab\tthere   and  here",
    "½ ² <x>",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    made, root = io.BytesIO(), tmp_path_factory.mktemp("t5")
    SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20), model_writer=made, vocab_size=90, hard_vocab_limit=False, minloglevel=2,
        character_coverage=1.0, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", num_threads=1,
    )  # fmt: skip
    T5Tokenizer(made.getvalue()).save(root / "model")
    transformers.T5Tokenizer.from_pretrained(str(root / "model"), extra_ids=4).save_pretrained(str(root / "json"))
    return root


def test_the_file_alone_gives_the_ids_of_the_model(folders):
    assert [path.name for path in (folders / "json").glob("*.model")] == []
    ours, model = T5Tokenizer.from_folder(folders / "json"), T5Tokenizer.from_folder(folders / "model")
    texts = [*LINES, "", "<extra_id_0> </s> <pad>", "zebra Ω"]
    ids = ours.encode(texts)
    assert ids.values.tolist() == model.encode(texts).values.tolist() and ours.unknown_id == model.unknown_id == 2
    assert ours.decode([ids[0], [1, ours.size - 1]]) == [LINES[0], ""]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(normalizer=None), "normalizer.type of"),
        (lambda data: data.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer of"),
        (lambda data: data["pre_tokenizer"]["pretokenizers"][1].update(prepend_scheme="never"), "prepend_scheme of"),
        (lambda data: data["model"].update(byte_fallback=True), "byte_fallback is not supported"),
        (lambda data: data["model"].pop("vocab"), "describes no tokenizer of a T5; got .*vocab"),
        (lambda data: data["model"].update(vocab=[["a"]]), "describes no tokenizer of a T5"),
    ],
    ids=["normalizer", "splitter", "begin", "bytes", "no pieces", "no scores"],
)
def test_what_cannot_be_reproduced_is_refused(folders, tmp_path, change, message):
    data = json.loads((folders / "json" / "tokenizer.json").read_text(encoding="utf-8"))
    change(data)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ModelError, match=message) as error:
        T5Tokenizer.from_folder(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no spiece.model, and no tokenizer.json with a Unigram model, in"):
        T5Tokenizer.from_folder(tmp_path)
