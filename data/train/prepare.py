"""Makes everything that training needs, and the two texts that are shipped, from seeds and frankenstein.txt.

DATA/heldout.txt         stories of seed HELDOUT, none of which is in the training text
DATA/calibration.txt     stories of seed CALIBRATION and all of Frankenstein, in turns
DATA/model/              tokenizer.json, tokenizer_config.json, generation_config.json
WORK/train.bin           the training text as uint16 token ids
WORK/prepared.json       where its stories begin, and the text's figures

usage: prepare.py DATA WORK [--bytes N] [--vocab N]"""
import argparse
import json
import math
import multiprocessing
import os

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import stories

TRAIN, HELDOUT, CALIBRATION = "train", "heldout", "calibration"
END = "<|endoftext|>"
NOVEL_COPIES = 8             # of the novel in the training text: about one token in fifty


def blocks(text):
    return [b for b in text.split("\n\n") if b.strip()]


def interleave(tales, novel, tale_bytes=6000, novel_bytes=3000):
    """Runs of stories and runs of the novel's paragraphs in turns, each run of about the given length."""
    out, queues, sizes, turn = [], [iter(tales), iter(novel)], [tale_bytes, novel_bytes], 0
    live = [True, True]
    while any(live):
        size = 0
        for block in queues[turn]:
            out.append(block)
            size += len(block)
            if size >= sizes[turn]:
                break
        else:
            live[turn] = False
        turn = 1 - turn
    return out


def write_blocks(path, parts):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write("\n\n".join(parts) + "\n")


def train_tokenizer(parts, vocab):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(parts, trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    return tok


def save_tokenizer(tok, directory):
    os.makedirs(directory, exist_ok=True)
    tok.save(os.path.join(directory, "tokenizer.json"))
    end = tok.token_to_id(END)
    files = {"tokenizer_config.json": dict(tokenizer_class="PreTrainedTokenizerFast", bos_token=END, eos_token=END,
                                           add_bos_token=False, clean_up_tokenization_spaces=False, model_max_length=512),
             "generation_config.json": dict(bos_token_id=end, eos_token_id=end)}
    for name, value in files.items():
        with open(os.path.join(directory, name), "w") as f:
            json.dump(value, f, indent=2)
            f.write("\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("data")
    p.add_argument("work")
    p.add_argument("--bytes", type=int, default=300_000_000)
    p.add_argument("--vocab", type=int, default=3072)
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    novel = blocks(open(os.path.join(stories.HERE, "frankenstein.txt"), encoding="utf-8").read())

    shards = [(f"{TRAIN}/{at}", min(stories.SHARD, a.bytes - at)) for at in range(0, a.bytes, stories.SHARD)]
    with multiprocessing.Pool() as pool:
        train = [s for text in pool.imap(stories.shard, shards) for s in blocks(text)]
    seen = set(train)
    heldout = [s for s in blocks(stories.shard((HELDOUT, 250_000))) if s not in seen]
    write_blocks(os.path.join(a.data, "heldout.txt"), heldout)
    write_blocks(os.path.join(a.data, "calibration.txt"),
                 interleave(blocks(stories.shard((CALIBRATION, 850_000))), novel))

    tok = train_tokenizer(train[:20_000] + novel, a.vocab)
    save_tokenizer(tok, os.path.join(a.data, "model"))
    newline, end = tok.encode("\n").ids, tok.token_to_id(END)
    tokens, starts, size = [], [], 0
    book = np.concatenate([np.array(e.ids + newline * 2, np.uint16) for e in tok.encode_batch(novel)])
    step = -(-len(train) // NOVEL_COPIES)
    for at in range(0, len(train), step):
        for i, e in enumerate(tok.encode_batch(train[at:at + step])):
            starts.append(size)                    # every other story ends in the end token instead of a blank line
            tokens.append(np.array(e.ids + ([end] if i % 2 else newline * 2), np.uint16))
            size += len(tokens[-1])
        tokens.append(book)
        size += len(book)
    tokens = np.concatenate(tokens)
    tokens.tofile(os.path.join(a.work, "train.bin"))
    np.array(starts, np.int64).tofile(os.path.join(a.work, "starts.bin"))

    held = tok.encode(open(os.path.join(a.data, "heldout.txt"), encoding="utf-8").read()).ids
    counts = np.bincount(tokens, minlength=a.vocab) + 1.0
    unigram = math.exp(-np.log(counts / counts.sum())[held].mean())
    info = dict(train_stories=len(train), train_bytes=sum(map(len, train)), train_tokens=len(tokens),
                heldout_stories=len(heldout), heldout_tokens=len(held), unigram_perplexity=unigram)
    with open(os.path.join(a.work, "prepared.json"), "w") as f:
        json.dump(info, f, indent=2)
    print(json.dumps(info))


if __name__ == "__main__":
    main()
