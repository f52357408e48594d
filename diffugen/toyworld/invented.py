"""The invented kinds: 220 things that exist only here, each with a nonce word and a fixed genome.

They make the space of objects dense, so that a word for an unseen object has neighbours on all sides. A genome is
drawn once from the kind's index; an instance varies only its proportions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from diffugen.toyworld.shapes import (
    Part,
    bar,
    box,
    ellipse,
    moved,
    polygon,
    right_at,
    rounded_box,
    smooth,
    top_at,
    trapezoid,
    wheel,
)

NUM_INVENTED = 220

# Bodies live in the unit square (0..1 in both axes) and are then stretched to the genome's aspect.
BODIES: dict[str, Callable[[], Part]] = {
    "box": lambda: box(0, 0, 1, 1),
    "rounded": lambda: rounded_box(0, 0, 1, 1, 0.3),
    "ellipse": lambda: ellipse(0.5, 0.5, 0.5, 0.5),
    "taper": lambda: trapezoid(0, 0, 1, 1, 0.55),
    "flare": lambda: trapezoid(0.22, 0, 0.56, 1, 1.78),
    "triangle": lambda: polygon((0, 0), (1, 0), (0.5, 1)),
    "ell": lambda: polygon((0, 0), (1, 0), (1, 0.45), (0.45, 0.5), (0.45, 1), (0, 1)),
    "wedge": lambda: polygon((0, 0), (1, 0), (1, 0.25), (0.1, 1), (0, 1)),
    "wing": lambda: smooth((0, 0.1), (0, 1), (0.5, 0.95), (1.05, 1), (1.05, 0.3), (0.8, 0), (0.45, 0.2)),
    "kidney": lambda: smooth((0, 0), (-0.05, 1), (0.3, 1.1), (0.5, 0.6), (0.75, 1.1), (1.05, 0.9), (1, 0)),
    "dome": lambda: ellipse(0.5, 0, 0.5, 1, start=0, stop=180),
    "hexagon": lambda: polygon((0.25, 0), (0.75, 0), (1, 0.5), (0.75, 1), (0.25, 1), (0, 0.5)),
    "crescent": lambda: smooth((0, 1.1), (0, 0), (0.5, -0.15), (1, 0), (1, 1.1), (0.7, 0.55), (0.3, 0.55)),
    "blob": lambda: smooth((-0.1, 0.9), (0.1, 0), (0.6, 0), (1.05, 0.1), (1.05, 0.8), (0.6, 1.1), (0.3, 0.7)),
    "pear": lambda: smooth((0, 0), (1, 0), (1.05, 0.5), (0.7, 0.6), (0.7, 1.1), (0.3, 1.1), (0.3, 0.6), (-0.05, 0.5)),
    "diamond": lambda: polygon((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
}
TOPS = ("none", "dome", "spike", "lid", "chimney", "head", "fin", "crest", "block", "horns", "slab")
SIDES = ("none", "none", "beak", "handle", "arm", "wing", "tail", "knob")
SUPPORTS = ("none", "two legs", "three legs", "four legs", "thick legs", "wheels", "pedestal", "skids")
ACCENTS = ("none", "band", "keys", "windows", "dots", "stripes", "eye", "panel")
HUES = ("white", "black", "yellow", "red", "blue", "green", "orange", "pink")


@dataclass(frozen=True)
class Genome:
    """What all instances of a kind share; positions are fractions of the body's width or height."""

    body: str
    aspect: float
    top: str
    top_x: float
    top_size: float
    second_top: str
    side: str
    side_y: float
    other_side: str
    support: str
    accent: str
    hue: str
    contrasting_top: bool

    @property
    def key(self) -> tuple[str, ...]:
        return (self.body, self.top, self.side, self.support)


def _draw_genome(rng: np.random.Generator) -> Genome:
    return Genome(
        body=str(rng.choice(list(BODIES))),
        aspect=float(np.exp(rng.uniform(np.log(0.65), np.log(2.0)))),
        top=str(rng.choice(TOPS)),
        top_x=float(rng.uniform(0.2, 0.8)),
        top_size=float(rng.uniform(0.75, 1.25)),
        second_top=str(rng.choice(TOPS)) if rng.random() < 0.25 else "none",
        side=str(rng.choice(SIDES)),
        side_y=float(rng.uniform(0.3, 0.75)),
        other_side=str(rng.choice(SIDES)) if rng.random() < 0.4 else "none",
        support=str(rng.choice(SUPPORTS)),
        accent=str(rng.choice(ACCENTS)),
        hue=str(rng.choice(HUES)),
        contrasting_top=bool(rng.random() < 0.35),
    )


def _is_a_rare_thing(genome: Genome) -> bool:
    """Whether a combination would be a duck (round, headed, beaked) or a piano (lidded slab with keys on legs)."""
    tops = {genome.top, genome.second_top}
    duck = (
        genome.body in ("ellipse", "blob", "crescent", "rounded", "pear")
        and "head" in tops
        and ("beak" in (genome.side, genome.other_side))
    )
    piano = genome.accent in ("keys", "band") and tops & {"lid", "slab"} and "legs" in genome.support
    return duck or bool(piano)


@cache
def genomes() -> dict[str, Genome]:
    """Word -> genome, in index order; no two share body, top, side and support."""
    rng = np.random.default_rng(20_260)
    taken: set[tuple] = set()
    found: list[Genome] = []
    while len(found) < NUM_INVENTED:
        genome = _draw_genome(rng)
        if genome.key not in taken and not _is_a_rare_thing(genome):
            taken.add(genome.key)
            found.append(genome)
    return dict(zip(_words(NUM_INVENTED), found, strict=True))


def _words(count: int) -> list[str]:
    """Distinct pronounceable nonce words of 4 to 7 letters."""
    rng = np.random.default_rng(7)
    words: list[str] = []
    starts = "b bl br d dr f fl g gl gr k kl kr m n pl pr sk sn spl st t tr v vl vr z zl zw".split()
    middles = "b bd d dl f g k kt l lm lv m mp n nd p r rv v z".split()
    ends = "b g k lk mp nt p rv v x z zk rb".split()
    while len(words) < count:
        vowels = rng.choice(list("aeiou"), 2)
        word = f"{rng.choice(starts)}{vowels[0]}"
        if rng.random() < 0.75:
            word += f"{rng.choice(middles)}{vowels[1]}"
        word += str(rng.choice(ends))
        known = word in _REAL_WORDS or any(word[:3] == other[:3] and word[-2:] == other[-2:] for other in words)
        if 4 <= len(word) <= 7 and not known:
            words.append(word)
    return words


# English words the syllables above could give.
_REAL_WORDS = frozenset(
    "blob blank blink brag break bring brink drag drank drink drip drop drunk drab drug flag flank flap flip flop flex "
    "frank front glob glib gulp grab grant grip grunt krill plank plant plug plum plump print prop prank skunk skip "
    "snap snip snob snug spit stab stag stamp step stop stump stunt stub tramp trip trap trump trek truck silk milk "
    "bulk bent dent tent mint punt font lamp damp dump bump jump camp lump mint dint gent kent verb zip zap vent "
    "brunt stint glint flint slant scant grog frog drip skimp splint grebe vamp vent kelp gap gab tulip unzip "
    "barb blip bilk mump garb fiver river rapid vivid gamp romp pomp tromp stomp chomp flant marb "
    "kramp fant".split()
)


def invented_parts(word: str, rng: np.random.Generator) -> list[Part]:
    """One instance of an invented kind."""
    genome = genomes()[word]
    aspect = genome.aspect * rng.uniform(0.92, 1.08)
    width, height = np.sqrt(aspect) * 1.2, 1.2 / np.sqrt(aspect)
    under, lift = _support(genome.support, width, rng.uniform(0.9, 1.1))
    body = moved([BODIES[genome.body]()], -width / 2, lift, width, height)[0]
    top_tone = f"accent-{genome.hue}" if genome.contrasting_top else "dark"
    size = 0.5 * genome.top_size * rng.uniform(0.92, 1.08)
    over = _top(genome.top, body, width * (genome.top_x - 0.5), size, top_tone)
    over += _top(genome.second_top, body, width * (0.5 - genome.top_x), size * 0.8, "main")
    right = _side(genome.side, body, lift + height * genome.side_y, "dark")
    mirrored = moved([body], scale_x=-1)[0]
    left = moved(_side(genome.other_side, mirrored, lift + height * genome.side_y, "light"), scale_x=-1)
    return [*under, *over, *right, *left, body, *_accent(genome.accent, body, f"accent-{genome.hue}")]


def _support(name: str, width: float, stretch: float) -> tuple[list[Part], float]:
    """The parts below the body and the height at which the body starts."""
    tall, leg = 0.42 * stretch, 0.17
    overlap = 0.3  # legs reach into the body, whose underside may be curved
    if name.endswith("legs"):
        count = {"two legs": 2, "three legs": 3, "four legs": 4, "thick legs": 2}[name]
        leg = 0.32 if name == "thick legs" else leg
        places = np.linspace(-0.32, 0.32, count) * width
        return [box(x - leg / 2, 0, leg, tall + overlap, "dark") for x in places], tall
    if name == "wheels":
        return [*wheel(-0.3 * width, 0.25), *wheel(0.3 * width, 0.25)], 0.3
    if name == "pedestal":
        return [box(-0.12, 0.1, 0.24, tall + overlap, "grey"), trapezoid(-0.4, 0, 0.8, 0.18, 0.6, "grey")], tall
    if name == "skids":
        posts = [box(x - 0.08, 0.1, 0.16, 0.2 + overlap, "grey") for x in (-0.25 * width, 0.25 * width)]
        return [*posts, rounded_box(-0.55 * width, 0, 1.1 * width, 0.17, 0.08, "black")], 0.3
    return [], 0.0


def _top(name: str, body: Part, x: float, size: float, tone: str) -> list[Part]:
    """Parts standing on the body at x; they start a little inside it."""
    y = top_at(body.points, x) - 0.08
    if name == "dome":
        return [ellipse(x, y, size * 0.7, size * 0.8, tone, 0, 180)]
    if name == "spike":
        return [polygon((x - size * 0.5, y), (x + size * 0.5, y), (x, y + size * 1.3), tone=tone)]
    if name == "lid":
        return [
            polygon(
                (x - size, y), (x - size * 0.8, y), (x + size, y + size), (x + size * 0.8, y + size * 1.3), tone=tone
            )
        ]
    if name == "chimney":
        return [box(x - 0.14, y - 0.1, 0.28, size + 0.2, tone), box(x - 0.2, y + size, 0.4, 0.14, "black")]
    if name == "head":
        return [
            ellipse(x, y + size * 0.5, size * 0.62, size * 0.62, tone),
            ellipse(x + size * 0.2, y + size * 0.65, 0.09, 0.09, "white"),
        ]
    if name == "fin":
        return [
            smooth(
                (x - size * 0.8, y),
                (x + size * 0.7, y),
                (x + size * 0.8, y + size * 1.4),
                (x + size * 0.3, y + size * 0.8),
                tone=tone,
            )
        ]
    if name == "crest":
        return [
            polygon((x + d - 0.17, y - 0.05), (x + d + 0.17, y - 0.05), (x + d, y + size * 0.8), tone=tone)
            for d in (-0.26, 0.0, 0.26)
        ]
    if name == "block":
        return [box(x - size * 0.6, y - 0.1, size * 1.2, size * 0.9 + 0.1, tone)]
    if name == "horns":
        return [bar(x, y - 0.05, x + d * size, y + size, 0.18, tone) for d in (-0.7, 0.7)]
    if name == "slab":
        return [
            box(x - 0.1, y - 0.1, 0.2, size * 0.6, "grey"),
            rounded_box(x - size, y + size * 0.4, size * 2, 0.24, 0.08, tone),
        ]
    return []


def _side(name: str, body: Part, y: float, tone: str) -> list[Part]:
    """Parts sticking out of the body's right side at height y."""
    x = right_at(body.points, y) - 0.12
    if name == "beak":
        return [polygon((x, y - 0.2), (x + 0.58, y - 0.05), (x, y + 0.2), tone="beak")]
    if name == "handle":
        return [
            rounded_box(x - 0.1, y - 0.3, 0.5, 0.6, 0.2, tone),
            rounded_box(x + 0.02, y - 0.13, 0.2, 0.26, 0.08, "black"),
        ]
    if name == "arm":
        return [bar(x, y, x + 0.45, y, 0.18, tone), bar(x + 0.4, y - 0.09, x + 0.4, y + 0.45, 0.18, tone)]
    if name == "wing":
        return [polygon((x - 0.1, y - 0.2), (x + 0.7, y + 0.3), (x + 0.55, y + 0.5), (x - 0.1, y + 0.25), tone=tone)]
    if name == "tail":
        return [
            smooth(
                (x - 0.1, y - 0.22),
                (x + 0.4, y - 0.2),
                (x + 0.7, y + 0.55),
                (x + 0.35, y + 0.25),
                (x - 0.1, y + 0.15),
                tone=tone,
            )
        ]
    if name == "knob":
        return [ellipse(x + 0.2, y, 0.24, 0.24, tone)]
    return []


def _accent(name: str, body: Part, tone: str) -> list[Part]:
    """Marks on the body, around the middle of its outline."""
    (left, bottom), (right, top) = body.points.min(axis=0), body.points.max(axis=0)
    width, height = right - left, top - bottom
    x, y = (left + right) / 2, bottom + 0.4 * height
    if name in ("band", "keys"):
        y0, y1 = y - 0.1, y + 0.1
        x0, x1 = (
            -max(right_at(body.points * (-1, 1), v) for v in (y0, y1)),
            max(right_at(body.points, v) for v in (y0, y1)),
        )
        inset = 0.06 * width
        strip = polygon(
            (x0 + inset, y0),
            (x1 - inset, y0),
            (x1 - inset, y1),
            (x0 + inset, y1),
            tone="white" if name == "keys" else tone,
        )
        ticks = [box(v - 0.04, y, 0.08, 0.1, "black") for v in np.linspace(x0 + inset + 0.12, x1 - inset - 0.12, 5)]
        return [strip, *(ticks if name == "keys" else [])]
    if name == "windows":
        return [box(x + d * width - 0.1, y - 0.1, 0.2, 0.22, "glass") for d in (-0.22, 0.0, 0.22)]
    if name == "dots":
        return [ellipse(x + d * width, y + e, 0.09, 0.09, tone) for d, e in ((-0.2, -0.05), (0.02, 0.1), (0.2, -0.08))]
    if name == "stripes":
        return [box(x + d * width - 0.06, y - 0.2 * height, 0.12, 0.36 * height, tone) for d in (-0.2, 0.0, 0.2)]
    if name == "eye":
        return [
            ellipse(x + 0.1 * width, y + 0.05, 0.17, 0.17, "white"),
            ellipse(x + 0.12 * width, y + 0.05, 0.08, 0.08, "black"),
        ]
    if name == "panel":
        return [rounded_box(x - 0.24 * width, y - 0.18 * height, 0.48 * width, 0.4 * height, 0.08, tone)]
    return []
