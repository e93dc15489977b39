"""Writes the little world that the embedded model is trained on: short stories for children, told by a grammar.

pools.txt holds phrases, words.txt words, plots*.txt the plots; each story draws its plots, its cast and every choice from
one seeded generator, so the same seed gives the same text. A blank line follows each story.

usage: stories.py SEED BYTES"""
import os
import random
import re
import sys

SHARD = 1 << 22
HERE = os.path.dirname(os.path.abspath(__file__))
GIRLS = ("Lily Anna Mia Rosa Ella Lucy Emma Nora Clara Ruby Ivy Zoe Alice Sara Julia Maya Hanna Eva Ida Marta Tina Nina "
         "Grace Molly Daisy Sophie Kate Jane Amy Leah Alma Agnes Bertha Bonnie Carla Cora Dora Edith Elena Elsa Esther Fanny "
         "Frida Gina Greta Helen Hilda Inga Irene Iris Jenny Joan Judy Karen Laura Lena Lina Linda Lotte Mabel Maria Mary Meg "
         "Millie Nancy Nelly Olga Pam Paula Peggy Rachel Rita Ruth Sally Selma Stella Susan Tilda Vera Wendy").split()
BOYS = ("Tom Ben Sam Max Leo Jack Tim Finn Paul Peter Noah Oscar Hugo Adam Luke Emil Otto Felix Daniel David Jonas Carl "
        "Henry Oliver Will Ned Joe Mark Theo Simon Albert Alan Andy Anton Arthur Axel Bill Bob Boris Bruce Chris Colin Dan "
        "Dennis Eddie Edgar Eric Ernest Frank Fred George Gilbert Gus Hans Harry Ian Ivan Jacob James Jim John Karl Ken Kurt "
        "Lars Lewis Louis Martin Matt Mike Nick Nils Owen Pablo Ralph Ray Robert Roger Rolf Rudy Stan Steve Ted Tony Victor "
        "Walter").split()
QUEENS = ("Hazel Poppy Fern Ginger Bella Willow Mimi Olive Maple Sandy Luna Penny Cleo Coco Dusty Snowy Clover Pearl Tansy "
          "Honey Amber Berry Bluebell Cherry Dora Flora Goldie Ivy Kitty Lulu Minnie "
          "Nutmeg Peaches Petal Plum Roxy Ruby Sunny Tulip").split()
KINGS = ("Rusty Pip Bruno Nibbles Pepper Bramble Moss Teddy Biscuit Toby Buster Rufus Acorn Thistle Jasper Button Patch "
         "Barney Chester Oscar Archie Bandit Basil Benny Bobo Captain Dash Duke Felix Fergus Flash Freddy Gizmo Henry Hopper "
         "Max Milo Monty Otis Pogo Ringo Rocky Sparky").split()
KINDS = "fox rabbit mouse squirrel hedgehog bear badger beaver otter deer cat dog frog goat lamb pony mole raccoon".split()
ELDERS = {"mother": 0, "father": 1, "grandmother": 0, "grandfather": 1, "aunt": 0, "uncle": 1, "mom": 0, "dad": 1}
PRONOUNS = (("she", "her", "her", "herself"), ("he", "him", "his", "himself"))


def read_sections(*names):
    """{header: lines} of the files' "= header" sections."""
    sections, lines = {}, None
    for name in names:
        for line in open(os.path.join(HERE, name), encoding="utf-8"):
            line = line.strip()
            if line.startswith("= "):
                lines = sections.setdefault(line[2:], [])
            elif line and not line.startswith("#"):
                lines.append(line)
    return sections


POOLS = read_sections("pools.txt")
POOLS.update({name: re.split(r",\s+", " ".join(lines)) for name, lines in read_sections("words.txt").items()})
POOLS["oneday_low"] = [line[0].lower() + line[1:] for line in POOLS["oneday"] if not line.startswith(("On ", "The "))]
POOLS["thank_back"] = [line.replace("{A}", "{x}").replace("{B}", "{A}").replace("{x}", "{B}").replace("{he}", "{bhe}")
                       for line in POOLS["thank"]]
PLOTS = [(*head.split(), lines) for head, lines in read_sections("plots1.txt", "plots2.txt").items()]


def articles(text):
    """"a" becomes "an" before a vowel."""
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


class Story:
    def __init__(self, rng):
        self.rng, self.env, self.recent = rng, {}, {}
        who = rng.choice(("child", "child", "animal"))
        plots = rng.sample([lines for _, kind, lines in PLOTS if kind in (who, "any")], 2 if rng.random() < 0.3 else 1)
        self._cast("", who, ())
        self._cast("b", who, (self.env["A"], self.env["kind"]))
        elder = rng.choice(list(ELDERS))
        self._pronouns("p", ELDERS[elder])
        self.env.update(par=elder, Par=elder.capitalize())
        for key in ("place", "water", "dream"):
            self.env[key] = self.expand(f"<{key}>")
        self.text = self._join([f"<open_{who}>"], plots[0])
        for plot in plots[1:]:
            self.text += "\n" + self._join(["<again>"], plot)

    def _pronouns(self, prefix, gender):
        for key, word in zip(("he", "him", "his", "himself"), PRONOUNS[gender]):
            self.env[prefix + key] = word
            self.env[(prefix + key)[0].upper() + (prefix + key)[1:]] = word.capitalize()

    def _cast(self, prefix, who, taken):
        """Binds name, kind and pronouns of the hero (prefix "") or the friend ("b")."""
        gender = self.rng.randrange(2)
        names, kinds = ((GIRLS, BOYS)[gender], [("girl", "boy")[gender]]) if who == "child" else (
            (QUEENS, KINGS)[gender], KINDS)
        self.env["B" if prefix else "A"] = self.rng.choice([n for n in names if n not in taken])
        self.env[prefix + "kind"] = self.rng.choice([k for k in kinds if who == "child" or k not in taken])
        self._pronouns(prefix, gender)

    def _draw(self, pool):
        """One line of a pool, not the one this story drew from it last."""
        last = self.recent.get(pool)
        self.recent[pool] = self.rng.choice([line for line in POOLS[pool] if line != last])
        return self.recent[pool]

    def expand(self, text):
        """Resolves the innermost choice again and again, then values and pools, until none is left."""
        while True:
            m = re.search(r"\[([^\[\]]*)\]", text)
            if m:
                new = self.rng.choice(m.group(1).split("|"))
            else:
                m = re.search(r"\{(\w+)\}|<(\w+)>", text)
                if not m:
                    return text
                new = self.env[m.group(1)] if m.group(1) else self._draw(m.group(2))
            text = text[:m.start()] + new + text[m.end():]

    def _join(self, told, plot):
        """Binds the plot's values and tells its beats after those in `told`, in one paragraph or two."""
        for line in plot:
            value = re.match(r"(\w+): (.*)", line)
            if value:
                self.env[value.group(1)] = self.expand(value.group(2))
            elif not line.startswith("? ") or self.rng.random() < 0.5:
                told.append(line.removeprefix("? "))
                if self.rng.random() < 0.15:
                    told.append("<aside>")
        told = [self.expand(beat) for beat in told]
        if self.rng.random() < 0.5:
            cut = self.rng.randrange(3, len(told) - 2)
            told[cut - 1:cut + 1] = [told[cut - 1] + "\n" + told[cut]]
        text = re.sub(r" *\n *", "\n", re.sub(r" +", " ", " ".join(told))).strip()
        text = re.sub(r" (?=[.,!?])", "", text)
        return articles(text)


def shard(job):
    """One shard's text: distinct stories of `size` bytes or a little more, each followed by a blank line."""
    seed, size = job
    rng, told, total = random.Random(seed), {}, 0
    while total < size:
        text = Story(rng).text
        if text not in told:
            told[text] = None
            total += len(text) + 2
    return "".join(text + "\n\n" for text in told)


if __name__ == "__main__":
    print(shard((sys.argv[1], int(sys.argv[2]))), end="")
