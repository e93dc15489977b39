"""Makes what training needs, and the two texts that are shipped, from WORK/tales.txt (tales.py), stories.py and
frankenstein.txt. The same inputs give the same bytes.

DATA/heldout.txt         tales and stories in turns, none of which is in the training text
DATA/calibration.txt     tales, stories and all of Frankenstein in turns
DATA/model/              tokenizer.json, tokenizer_config.json, generation_config.json
WORK/train.bin           the training text as uint16 token ids
WORK/starts.bin          where its tales and stories begin, int64
WORK/prepared.json       its figures

usage: prepare.py DATA WORK [--bytes N] [--vocab N]"""
import argparse
import json
import math
import multiprocessing
import os
import random

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import stories

TRAIN, HELDOUT = "train", "heldout"                  # seeds
HELDOUT_TALES, HELDOUT_STORIES = 170_000, 80_000     # bytes
END = "<|endoftext|>"
NOVEL_COPIES = 4             # of the novel in the training text


def blocks(text):
    return [b for b in text.split("\n\n") if b.strip()]


def take(parts, size):
    """As many of the first blocks as make `size` bytes."""
    for n, part in enumerate(parts):
        size -= len(part) + 2
        if size <= 0:
            return parts[:n + 1]
    return parts


def interleave(*runs):
    """Of each (blocks, bytes) a run of about so many bytes, in turns, until all are used up."""
    out, queues = [], [(list(parts), size) for parts, size in runs]
    while any(parts for parts, _ in queues):
        for parts, size in queues:
            run = take(parts, size)
            out += run
            del parts[:len(run)]
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
    p.add_argument("--bytes", type=int, default=15_000_000, help="of stories")
    p.add_argument("--vocab", type=int, default=3072)
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    novel = blocks(open(os.path.join(stories.HERE, "frankenstein.txt"), encoding="utf-8").read())

    tales = list(dict.fromkeys(blocks(open(os.path.join(a.work, "tales.txt"), encoding="ascii").read())))
    shards = [(f"{TRAIN}/{at}", min(stories.SHARD, a.bytes - at)) for at in range(0, a.bytes, stories.SHARD)]
    with multiprocessing.Pool() as pool:
        told = [s for text in pool.imap(stories.shard, shards) for s in blocks(text)]
    held_tales = take(tales, HELDOUT_TALES)
    del tales[:len(held_tales)]
    train = tales + told
    seen = set(train)
    held_stories = [s for s in blocks(stories.shard((HELDOUT, HELDOUT_STORIES))) if s not in seen]
    write_blocks(os.path.join(a.data, "heldout.txt"), interleave((held_tales, 6000), (held_stories, 3000)))
    write_blocks(os.path.join(a.data, "calibration.txt"), interleave(
        (take(tales, 560_000), 4000), (take(told, 280_000), 2000), (novel, 3000)))
    random.Random(TRAIN).shuffle(train)

    tok = train_tokenizer(train[:20_000] + novel, a.vocab)
    save_tokenizer(tok, os.path.join(a.data, "model"))
    newline, end = tok.encode("\n").ids, tok.token_to_id(END)
    tokens, starts, size = [], [], 0
    book = np.concatenate([np.array(e.ids + newline * 2, np.uint16) for e in tok.encode_batch(novel)])
    step = -(-len(train) // NOVEL_COPIES)
    for at in range(0, len(train), step):
        for i, e in enumerate(tok.encode_batch(train[at:at + step])):
            starts.append(size)                    # every other one ends in the end token instead of a blank line
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
    info = dict(train_tales=len(tales), train_stories=len(told), train_bytes=sum(map(len, train)), train_tokens=len(tokens),
                heldout_tales=len(held_tales), heldout_stories=len(held_stories), heldout_tokens=len(held),
                unigram_perplexity=unigram)
    with open(os.path.join(a.work, "prepared.json"), "w") as f:
        json.dump(info, f, indent=2)
    print(json.dumps(info))


if __name__ == "__main__":
    main()
