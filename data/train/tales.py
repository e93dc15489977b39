"""Asks a larger open model (SmolLM2-135M-Instruct, Apache-2.0, as a Hugging Face directory) for short tales, and keeps
those that are whole and do not repeat themselves: one block each, a blank line after it.

usage: tales.py TEACHER OUT [--minutes M] [--batch N]"""
import argparse
import collections
import json
import os
import random
import re
import time

import torch
from tokenizers import Tokenizer

import llama
import stories
from sampler import Sampler

CHAT = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n")
LENGTH = 384                 # tokens of prompt and tale together
ASCII = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2014": "-", "\u2013": "-"})
ASKS = (
    "Write a short story for children about {name}, a {beast} and a {adj} {thing}. It happens [in the {place}|by the {water}].",
    "Write a very short story about a {beast} who finds a {adj} {thing} [in the {place}|by the {water}]. Use simple words.",
    "Write a short story in which {name} [learns to share a {thing}|is afraid of a {beast}|helps a {adj} {beast}] "
    "[in the {place}|by the {water}].",
    "Tell me a short story about [two friends|a brother and a sister|a {kin} and a child|an old {man} and a {beast}] "
    "[in the {place}|by the {water}|in a storm|on a long journey] who [find|lose|build|look for] a {thing}.",
    "Write a simple tale about {name}, who wants to [become a {job}|see the {water}|make a gift for the {kin}|catch a {beast}].")
OPENS = ("{name} was", "{name} had a {adj} {thing}.", "One [sunny|rainy|cold|quiet|bright] [morning|afternoon|evening|day],",
         "[In a small village|In a quiet town|At the edge of the {place}|By the {water}|In a little house],",
         "There was once a {adj}", "Every [morning|day|evening|summer], {name}", "The {beast}", "The {thing} was",
         "It was a [cold|warm|dark|beautiful|strange] [morning|night|day]", "{name} and the {beast}", "The {kin} of {name}")
SLOTS = {"kin": list(stories.ELDERS), "man": ["man", "woman"], "name": stories.GIRLS + stories.BOYS,
         "job": "baker sailor farmer teacher doctor painter singer dancer king queen gardener pilot".split()}


def fill(rng, text, values):
    """Resolves choices, then slots; a slot that comes twice has one value."""
    text = re.sub(r"\[([^\]]*)\]", lambda m: rng.choice(m.group(1).split("|")), text)
    for slot in re.findall(r"\{(\w+)\}", text):
        values.setdefault(slot, rng.choice(SLOTS.get(slot) or stories.POOLS[slot]))
    return stories.articles(text.format(**values))


def finish(text, ended):
    """The tale as plain ASCII; one that was cut off ends with its last whole sentence."""
    text = re.sub(r"\s*\n\s*", "\n", text.translate(ASCII)).strip()
    if not ended:
        ends = list(re.finditer(r'[.!?]"?(?=\s)', text))
        text = text[:ends[-1].end()] if ends else ""
    return text


def refusal(text):
    """Why a tale is not kept, or ""."""
    words = re.findall(r"[a-z']+", text.lower())
    n = len(words)
    if n < 80 or not re.search(r'[.!?]"?$', text):
        return "short"
    if re.search(r"""[^A-Za-z0-9 \n.,!?"'\-:;]|\d\.|--""", text) or text.count('"') % 2:
        return "signs"
    if re.search(r"\b([a-z]+)\W+\1\b", text.lower()):
        return "doubled"
    for k, least in ((2, 0.72), (3, 0.88)):
        if len(set(zip(*(words[i:] for i in range(k))))) < least * (n - k + 1):
            return "repeats"
    common = collections.Counter(w for w in words if len(w) > 4).most_common(1)
    return "one word" if common and common[0][1] > max(6, 0.045 * n) else ""


def main():
    p = argparse.ArgumentParser()
    p.add_argument("teacher")
    p.add_argument("out")
    p.add_argument("--minutes", type=float, default=4.0)
    p.add_argument("--batch", type=int, default=2048)
    p.add_argument("--temperature", type=float, default=0.9)
    p.add_argument("--min-p", type=float, default=0.1)
    a = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    began, rng = time.time(), random.Random("tales")
    tok = Tokenizer.from_file(os.path.join(a.teacher, "tokenizer.json"))
    model = llama.load(a.teacher, torch.bfloat16, device)
    sampler = Sampler(model, a.batch, LENGTH, model.config["eos_token_id"], a.temperature, a.min_p)
    fates, size, last = collections.Counter(), 0, 0.0
    with open(a.out, "w", encoding="ascii", newline="\n") as f:
        while time.time() - began + last < 60 * a.minutes:
            start, heads, prompts = time.time(), [], []
            for _ in range(a.batch):
                values = {}
                ask = fill(rng, rng.choice(ASKS), values)
                heads.append(fill(rng, rng.choice(OPENS), values))
                prompts.append(CHAT.format(ask) + heads[-1])
            out = sampler([e.ids for e in tok.encode_batch(prompts)], enough=0.9)
            texts = tok.decode_batch([ids for ids, _ in out])
            for head, text, (_, ended) in zip(heads, texts, out):
                text = finish(head + text, ended)
                fate = refusal(text)
                fates[fate or "kept"] += 1
                if not fate:
                    f.write(text + "\n\n")
                    size += len(text) + 2
            f.flush()
            last = time.time() - start
            print(json.dumps(dict(seconds=round(time.time() - began, 1), batch_seconds=round(last, 2), kept_bytes=size,
                                  **fates)), flush=True)


if __name__ == "__main__":
    main()
