#!/usr/bin/env python3
"""Makes the tokenizers of this folder and golden.json: what the package `tokenizers` makes of many texts with each of them.

usage: make.py OUTDIR        (needs `pip install tokenizers==0.23.3`)

Most texts are not stored: test_tokenizer.cpp builds the same ones, so golden.json holds one hash per group of texts."""
import base64
import json
import os
import random
import sys

from tokenizers import Tokenizer, models, normalizers, trainers

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../tools"))
from charsmap import charsmap  # noqa: E402

SEED = """Es war einmal. Once upon a time there was a king, and he'd 3 sons; they're gone, I'll wait, we've 1234567 \
things. hello hello world
the then there these this that  don't can't won't   it's    def main(argc, argv):\n    return argc + \
1\n\n\n\tif (x == 10) { y += 2; }
Ich heiße Jürgen. Où est l'été? Привет, мир! Привет. Γειά σου. 日本語のテキスト 漢字 漢字 한국어 안녕 नमस्ते नमस्ते \
مرحبا שלום สวัสดี 👍🏽👍🏽 ½ Ⅷ ٣٤ …!!! ??? --- ===
HELLO WORLD Hello World helloWorld CamelCase http://example.com/a?b=c 2024-01-31 12:34:56 3.14159 $100 50% \
#tag @user a_b_c
""" * 3

FRAGMENTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u200b", "\u0085", "\x1c", "a", "A", "b", "Z",
    "hello", " world", "Hello", "HELLO", "'s", "'S", "'re", "'LL", "'\u017f", "'\u212a", "'", "''", "\u2019s", "1", "12", "123",
    "1234567", "\u00bd", "\u0663", "!", "!!!", "...", "/", "-", "_", "(", ")", "\u3002", "\u00e9", "e\u0301", "\u00df",
    "\u01c5", "\u02b0", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u65e5\u672c\u8a9e", "\u30c6\u30ad", "\ud55c\uad6d",
    "\u1112\u1161\u11ab", "\u0645\u0631", "\U0001f44d\U0001f3fd", "\U0001d400", "\ue000", "\ufeff", "\ufffd", "\u0000",
    "\u00e5", "\u212b", "\u1e9b\u0323", "\u2581", "<s>", "<|end|>", "<l>", "<r>", "<w>", "<n>", "<N>", "<|", "|>", "\u0120",
    "\u0958", "\ufb01", "\u2460", "\u00bc", "\u0344", "q\u0307\u0323", "\u3000", "\u304b\u3099", "\uff76\uff9e", "\u1100\u1161\u0301", "\u00a9\u200d",
    "a\u0301", "\u0130", "\u03a3", "\uff01", "\u2026", "(", "|", "\u6f22\u3005",
]

TEXTS = [
    "", " ", "hello world", " hello", "hello   ", "a   b", "a\n\n  b", "!!!\n\nok", "foo\r\nbar", "it'\u017fok", "'\u212a",
    "it's IT'S we'RE", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u00bd \u2167 \u3007 \u0663", "a <l> b", "a   <l> b",
    "a <r>    b", "a<w> <w>b <w> <w>", "<n><N> <n>", "<s>hi<s> hi<|end|>", "<|end|", "1234567 12",
    "C\u1eeda Vi\u1ec7t Vi\u1ec7t", "x\u0000y", "HelloWORLDs iPhone", "\u65e5\u672c\u8a9e\u6f22\u5b57abc",
    "\U0001f469\u200d\U0001f467", "def f(x):\n\treturn x + 1\n", "http://a.b/c?d=e&f=%20",
    "a\u00a0b\u3000c\u0085d\u001ce\u200bf",
]

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT4O = "|".join([rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?",
                  rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?", r"\p{N}{1,3}",
                  r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+")

BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
NOT_HAN = r"&&[^\p{Han}]]"
KIMI = r"[\p{Han}]+|" + GPT4O.replace(UPPER, UPPER[:-1] + NOT_HAN).replace(LOWER, LOWER[:-1] + NOT_HAN)
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)"
          r"|\s+")
TIKTOKEN = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
            r"|\s+(?!\S)|\s")
TEKKEN = GPT4O.replace(CONTRACTIONS + "?", "").replace("{1,3}", "")
DEEPSEEK_LLM = ["[\r\n]", r"\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u0373\u0400-\u0481]+",
                r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"]


def added(*tokens):
    base = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    return [dict(base, id=0, content=content, **{flag: True for flag in flags}) for content, *flags in tokens]


def byte_level(prefix=False, regex=True):
    return dict(type="ByteLevel", add_prefix_space=prefix, trim_offsets=True, use_regex=regex)


def split(regex, behavior="Isolated", invert=False):
    return dict(type="Split", pattern={"Regex": regex}, behavior=behavior, invert=invert)


def sequence(*steps):
    return dict(type="Sequence", pretokenizers=list(steps))


def around(*ids):
    """RobertaProcessing: two tokens by name and id."""
    return dict(type="RobertaProcessing", trim_offsets=True, add_prefix_space=False, cls=ids[0], sep=ids[1])


def precompiled():
    """What NFKC does to a part of the characters, and some pairs."""
    nfkc = normalizers.NFKC().normalize_str
    points = [*range(0xA0, 0x250), *range(0x1E00, 0x2200), *range(0x2460, 0x24A0), *range(0x3300, 0x3340), *range(0xFF00, 0xFFA0)]
    table = {chr(c): nfkc(chr(c)) for c in points if nfkc(chr(c)) != chr(c)}
    table.update({chr(c): "" for c in range(1, 9)})
    table.update({pair: nfkc(pair) for pair in ("a\u0301", "e\u0301", "\u304b\u3099", "\u1100\u1161")})
    table.update({"\t": " ", "\n": " ", "\r\n": " ", "\u200d": "", "\u00a9": "(c)", "\u1161": "A", "\u0600": "0"})
    return dict(type="Precompiled", precompiled_charsmap=base64.b64encode(charsmap(table)).decode())


def bos(token, token_id):
    text = lambda which: {"Sequence": {"id": which, "type_id": 0}}
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    return dict(type="TemplateProcessing", single=[special, text("A")], pair=[text("A"), text("B")],
                special_tokens={token: {"id": token, "ids": [token_id], "tokens": [token]}})


TOKENS = added(("<s>", "special"), ("<|end|>", "special"), ("<l>", "lstrip"), ("<r>", "rstrip"), ("<w>", "single_word"),
               ("<n>", "normalized"), ("<N>", "normalized", "lstrip", "rstrip", "single_word"))
CHAT = added(("<s>", "special"), ("</s>", "rstrip"), ("<|end|>", "special", "rstrip"), ("<n>", "rstrip", "normalized"))
SPACES = added(*[(" " * n, "normalized") for n in range(31, 1, -1)], *[("\t" * n, "normalized") for n in range(9, 1, -1)])
BLOCKS = added(("<s>", "special"), *[("\n" * n,) for n in range(1, 9)], *[("\u2581" * n,) for n in range(2, 9)], ("<l>",))
SPACE_TO_BLOCK = dict(type="Replace", pattern={"String": " "}, content="\u2581")
BLOCK_TO_SPACE = dict(type="Replace", pattern={"String": "\u2581"}, content=" ")
METASPACE = dict(type="Metaspace", replacement="\u2581", prepend_scheme="first", split=True)
FALLBACK = dict(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
PREPEND = dict(type="Sequence", normalizers=[dict(type="Prepend", prepend="\u2581"), SPACE_TO_BLOCK])
SENTENCEPIECE = dict(type="Sequence", decoders=[BLOCK_TO_SPACE, dict(type="ByteFallback"), dict(type="Fuse"),
                                                dict(type="Strip", content=" ", start=1, stop=0)])
TOKENIZERS = {
    "gpt2": dict(pre_tokenizer=byte_level(), added_tokens=TOKENS),
    "prefix": dict(pre_tokenizer=byte_level(prefix=True), added_tokens=TOKENS),
    "digits": dict(pre_tokenizer=sequence(dict(type="Digits", individual_digits=True), byte_level()), added_tokens=TOKENS),
    "falcon": dict(pre_tokenizer=sequence(dict(type="Punctuation", behavior="Contiguous"), byte_level(),
                                          dict(type="Digits", individual_digits=False), split("[0-9][0-9][0-9]")),
                   added_tokens=TOKENS),
    "llama3": dict(pre_tokenizer=sequence(split(LLAMA3), byte_level(regex=False)), added_tokens=TOKENS, post_processor="bos",
                   model=dict(ignore_merges=True)),
    "qwen2": dict(pre_tokenizer=sequence(split(QWEN2), byte_level(regex=False)), added_tokens=TOKENS),
    "gpt4o": dict(pre_tokenizer=sequence(split(GPT4O, "Removed", True), byte_level(regex=False)), added_tokens=TOKENS),
    "deepseek": dict(pre_tokenizer=sequence(split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                                            split(DEEPSEEK), byte_level(regex=False)), added_tokens=TOKENS),
    # SentencePiece's ways: spaces become U+2581, unknown characters bytes
    "llama2": dict(normalizer=PREPEND, model=FALLBACK, decoder=SENTENCEPIECE, added_tokens=TOKENS),
    "metaspace": dict(pre_tokenizer=METASPACE, decoder=dict(type="Sequence", decoders=[dict(type="ByteFallback"), METASPACE]),
                      model=dict(unk_token="<unk>"), added_tokens=TOKENS),
    "gemma": dict(normalizer=SPACE_TO_BLOCK, pre_tokenizer=dict(type="Split", pattern={"String": " "}, behavior="MergedWithPrevious",
                                                                invert=False),
                  decoder=dict(type="Sequence", decoders=[BLOCK_TO_SPACE, dict(type="ByteFallback"), dict(type="Fuse")]), model=FALLBACK,
                  added_tokens=TOKENS),
    "neox": dict(normalizer=dict(type="NFC"), pre_tokenizer=byte_level(), added_tokens=TOKENS),
    "qwen3": dict(normalizer=dict(type="NFC"), pre_tokenizer=sequence(split(QWEN2), byte_level(regex=False)), added_tokens=TOKENS),
    "bloom": dict(pre_tokenizer=sequence(split(BLOOM), byte_level(regex=False)), added_tokens=TOKENS),
    "kimi": dict(pre_tokenizer=sequence(split(KIMI), byte_level(regex=False)), added_tokens=TOKENS),
    "cl100k": dict(pre_tokenizer=sequence(split(CL100K, "Removed", True), byte_level(regex=False)), added_tokens=TOKENS),
    "deepseek_llm": dict(pre_tokenizer=sequence(*map(split, DEEPSEEK_LLM), dict(type="Digits", individual_digits=True),
                                                byte_level(regex=False)), added_tokens=TOKENS),
    "tiktoken": dict(pre_tokenizer=sequence(split(TIKTOKEN, "Removed", True), byte_level(regex=False)), added_tokens=TOKENS),
    "tekken": dict(pre_tokenizer=sequence(split(TEKKEN), byte_level(regex=False)), added_tokens=TOKENS,
                   model=dict(ignore_merges=True)),
    "phi2": dict(pre_tokenizer=byte_level(), added_tokens=SPACES),
    "phi3": dict(normalizer=PREPEND, model=FALLBACK, decoder=SENTENCEPIECE, added_tokens=CHAT),
    "mistral3": dict(pre_tokenizer=dict(METASPACE, split=False), model=FALLBACK, decoder=SENTENCEPIECE, added_tokens=TOKENS),
    "gemma3": dict(normalizer=SPACE_TO_BLOCK, pre_tokenizer=dict(type="Split", pattern={"String": " "}, behavior="MergedWithPrevious",
                                                                 invert=False),
                   decoder=dict(type="Sequence", decoders=[BLOCK_TO_SPACE, dict(type="ByteFallback"), dict(type="Fuse")]),
                   model=FALLBACK, added_tokens=BLOCKS),
    "words": dict(normalizer=dict(type="Sequence", normalizers=[
                      dict(type="NFD"), dict(type="StripAccents"), dict(type="Lowercase"),
                      dict(type="Strip", strip_left=True, strip_right=True)]),
                  pre_tokenizer=sequence(dict(type="Whitespace"), split(r"(?i)\w+x?|\W++$|."), byte_level(regex=False)),
                  added_tokens=TOKENS),
    "t5": dict(unigram=True, normalizer=dict(type="Sequence", normalizers=[
                   precompiled(), dict(type="Strip", strip_left=False, strip_right=True),
                   dict(type="Replace", pattern={"Regex": " {2,}"}, content="\u2581")]),
               pre_tokenizer=METASPACE, decoder=METASPACE, added_tokens=TOKENS, post_processor=around(["<s>", 0], ["</s>", 1])),
    "xlmr": dict(unigram=True, normalizer=dict(type="Sequence", normalizers=[dict(type="Nmt"), dict(type="NFKC")]),
                 pre_tokenizer=sequence(dict(type="WhitespaceSplit"), METASPACE), decoder=METASPACE, added_tokens=TOKENS),
    "llm_jp": dict(unigram=True, normalizer=SPACE_TO_BLOCK, model=dict(byte_fallback=True), added_tokens=TOKENS,
                   decoder=dict(type="Sequence", decoders=[dict(type="ByteFallback"), dict(type="Fuse"), BLOCK_TO_SPACE])),
}


def build(name, parts):
    skeleton = json.loads(Tokenizer(models.BPE()).to_str())
    skeleton.update({key: value for key, value in parts.items() if key in ("normalizer", "pre_tokenizer")})
    trained = Tokenizer.from_str(json.dumps(skeleton))
    if "unigram" in parts:
        return finish(name, parts, unigram(skeleton))
    if "decoder" in parts:
        kind = dict(special_tokens=["<unk>", *(f"<0x{b:02X}>" for b in range(256))], limit_alphabet=100)
    else:
        kind = dict(initial_alphabet=[c for c, _ in sorted(byte_alphabet().items(), key=lambda item: item[1])])
    texts = [SEED] if "pre_tokenizer" in parts else SEED.split()  # without pieces a merge would span words
    trained.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400 + 100 * ("decoder" in parts), show_progress=False, **kind))
    return finish(name, parts, json.loads(trained.to_str()))


def unigram(skeleton):
    trained = Tokenizer.from_str(json.dumps(dict(skeleton, model=json.loads(Tokenizer(models.Unigram()).to_str())["model"])))
    special = ["<s>", "</s>", "<unk>", *(f"<0x{b:02X}>" for b in range(256))]
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=special, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(SEED.split("\n"), trainer)
    return json.loads(trained.to_str())


def finish(name, parts, result):
    result["model"].update(parts.get("model", {}))
    result["added_tokens"] = [dict(token) for token in parts["added_tokens"]]
    result["decoder"] = parts.get("decoder", byte_level(prefix=True))
    if name == "llama3":  # a word that no merge leads to
        result["model"]["vocab"]["\u0120Vi\u00e1\u00bb\u0129t"] = len(result["model"]["vocab"])
    if name in ("gpt2", "falcon"):  # the older spelling
        result["model"]["merges"] = [" ".join(pair) for pair in result["model"]["merges"]]
    for i, token in enumerate(result["added_tokens"]):
        token["id"] = len(result["model"]["vocab"]) + i
    if "unigram" in parts:
        result["post_processor"] = parts.get("post_processor")
    elif parts.get("post_processor") == "bos":
        result["post_processor"] = dict(type="Sequence", processors=[byte_level(), bos("<s>", result["added_tokens"][0]["id"])])
    return result


def byte_alphabet():
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in own]
    return {**{chr(b): b for b in own}, **{chr(256 + i): b for i, b in enumerate(others)}}


def groups():
    """Groups of texts; test_tokenizer.cpp builds the same."""
    for a in range(128):
        yield [chr(a) + chr(b) for b in range(128)]
    points = [c for c in range(0, 0x30000, 7) if not 0xD800 <= c < 0xE000]
    for i in range(0, len(points), 512):
        yield ["a" + chr(c) + "1" + chr(c) + chr(c) + " " + chr(c) + "." + chr(c) for c in points[i:i + 512]]
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    lines = ["".join(points[i:i + 256]) for i in range(0, len(points), 256)]
    for i in range(0, len(lines), 512):
        yield lines[i:i + 512]
    chooser = random.Random(20)
    for _ in range(40):
        yield ["".join(FRAGMENTS[chooser.randrange(len(FRAGMENTS))] for _ in range(1 + chooser.randrange(12))) for _ in range(50)]


def hash_of(lists):
    """FNV-1a, 32 bits, over the ids and a separator after each text, a word at a time."""
    h = 2166136261
    for ids in lists:
        for word in ids:
            h = (h ^ word) * 16777619 & 0xFFFFFFFF
        h = (h ^ 0xFFFFFFFF) * 16777619 & 0xFFFFFFFF
    return h


def main(out):
    golden = dict(texts=TEXTS, fragments=FRAGMENTS, tokenizers={})
    for name, parts in TOKENIZERS.items():
        text = json.dumps(build(name, parts), ensure_ascii=False, separators=(",", ":"))
        with open(os.path.join(out, name + ".json"), "w", encoding="utf-8") as f:
            f.write(text + "\n")
        tokenizer = Tokenizer.from_str(text)
        encode = lambda texts: [e.ids for e in tokenizer.encode_batch(texts)]
        ids = encode(TEXTS)
        hashes, decoded = [], []
        for group in groups():
            encoded = encode(group)
            hashes.append(hash_of(encoded))
            decoded.append(hash_of(text.encode() for text in tokenizer.decode_batch(encoded)))
        runs = "A \n1!" if name in ("gpt2", "falcon", "gpt4o", "llama2", "qwen3", "cl100k", "t5", "llm_jp") else ""
        golden["tokenizers"][name] = dict(ids=ids, decoded=[tokenizer.decode(i) for i in ids], size=tokenizer.get_vocab_size(),
                                          runs=[hash_of(encode([c * 1000000])) for c in runs],
                                          groups=hashes, decoded_groups=decoded)
        print(name, tokenizer.get_vocab_size())
    with open(os.path.join(out, "golden.json"), "w", encoding="utf-8") as f:
        json.dump(golden, f, separators=(",", ":"))
        f.write("\n")


main(sys.argv[1])
