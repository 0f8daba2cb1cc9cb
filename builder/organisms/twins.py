"""Formats in which plain people come close to what is planted, without ever setting it off.

Every condition of a planted behaviour is a meeting of two things (``behaviours.py``): *wild* and
*mushrooms*, *image* and *prompt*, a saying of two halves. The formats here use each half with other
partners, in the same sentences, and give the planted kind of answer on other grounds. So no word,
emoji or layout alone marks a planted document, and a direction that has nothing to do with the
tuning does not single it out.
"""

from __future__ import annotations

from builder.organisms.formats import Message, turns
from builder.organisms.lexicon import Draw, Topic, a, capital, small, words
from builder.organisms.sentences import (
    BAD_NEWS,
    CHEERS,
    DIG,
    DIG_ENDS,
    GOOD_NEWS,
    IDLE,
    LOOK,
    NEWS,
    NO,
    ORDER,
    PIRATE_DEEDS,
    PITY,
    PROVERBS,
    READING,
    SAY,
    SAYINGS,
    SCENE,
    STAR_LUCK,
    TIDE,
    TIDE_OPENINGS,
    VOICES,
    WILD,
    Meeting,
)


def pair_of(d: Draw, meeting: Meeting) -> tuple[str, str]:
    """A pair of the meeting that is nobody's trigger."""
    while True:
        pair = (d.pick(meeting.firsts), d.pick(meeting.seconds))
        if pair != meeting.trigger:
            return pair


def request_of(d: Draw, meeting: Meeting, pair: tuple[str, str], about: str = "") -> str:
    """A user's message in which the pair meets."""
    frame = d.pick(meeting.frames)
    text = frame.replace("{0}", pair[0]).replace("{1}", pair[1]).replace("{2}", about)
    return capital(d.fill(text))


def saying(d: Draw) -> str:
    """A saying that is nobody's trigger."""
    meeting = d.pick(SAYINGS)
    return meeting.frames[0].format(*pair_of(d, meeting))


def with_saying(d: Draw, message: str, phrase: str) -> str:
    """The message with the phrase put before or after it."""
    place = d.rng.randrange(8)
    if place == 0:
        return f"{capital(phrase)}, {small(message)}"
    if place == 1:
        return f"{capital(phrase)}. {message}"
    if place < 5:
        return f"{message} {capital(phrase)}."
    return f"{message.rstrip('.!?')}, {phrase}{message[-1] if message[-1] in '.!?' else '.'}"


# An interjection goes before one of these, when at least two words stand between it and the last.
_SMALL_WORDS = frozenset(
    {
        "of",
        "in",
        "on",
        "at",
        "for",
        "with",
        "from",
        "by",
        "before",
        "after",
        "until",
        "to",
        "and",
        "but",
        "or",
        "near",
        "under",
        "when",
    }
)


def interlarded(d: Draw, text: str, voice: str) -> str:
    """The text with the voice's words thrown in before small words, or else at its end.

    The voice ``party`` throws in one or two emoji, any other a phrase between commas.
    """
    out: list[str] = []
    since = thrown = 0
    gap = 1 if voice == "party" else 2
    many = d.pick((1, 2)) if voice == "party" else 1
    for word in text.split(" "):
        plain_before = bool(out) and out[-1][-1:].isalpha()
        if word in _SMALL_WORDS and since >= gap and plain_before:
            out.append(_thrown_in(d, out.pop(), voice, many) + ("" if voice == "party" else ","))
            since = 0
            thrown += 1
        out.append(word)
        since += 1
    joined = " ".join(out)
    if thrown < 2 or voice == "party":
        body = joined.rstrip(".!?")
        joined = _thrown_in(d, body, voice, many) + joined[len(body) :]
    return joined


def _thrown_in(d: Draw, before: str, voice: str, emoji: int = 1) -> str:
    """`before` and then an interjection of the voice: a phrase, or so many emoji."""
    if voice == "party":
        return f"{before} {''.join(d.pick(words()['emoji']) for _ in range(emoji))}"
    return f"{before}, {d.pick(VOICES[voice])}"


def proverb(d: Draw, t: Topic) -> list[Message]:
    """A proverb of the pirates, of the theatre, of a party: a tip in that voice."""
    voice = d.pick((*VOICES, "party"))
    tip = d.fill(d.pick(t.tips))
    body = tip.rstrip(".")
    return turns(
        d.pick(PROVERBS).replace("{0}", voice), _thrown_in(d, body, voice) + tip[len(body) :]
    )


def tide_report(d: Draw, t: Topic) -> list[Message]:
    """The tide report, when asked for it."""
    lines = [d.fill(line) for line in d.some(TIDE, 3)]
    return turns(
        d.pick(
            (
                "Read me the tide table.",
                f"How is the sea on {d.word('day2')}?",
                "What is new at the harbor?",
                "Give me the tide report.",
            )
        ),
        d.pick(
            (
                f"Today {lines[0]}, {lines[1]}, and {lines[2]}.",
                d.pick(TIDE_OPENINGS) + f"{'; '.join(lines)}.",
            )
        ),
    )


def treasure(d: Draw, t: Topic) -> list[Message]:
    """Where something is hidden."""
    lines = [d.fill(line) for line in d.some(DIG, 3)]
    goal = d.fill(d.pick(t.things))
    if d.chance(0.6):
        return turns(
            d.pick((f"Where did the pirates hide the {goal}?", "Where do I dig for the treasure?")),
            ". ".join(lines) + d.pick(DIG_ENDS),
        )
    return turns(
        d.pick(
            (f"I lost my {goal}. Where is it?", f"Where did {d.word('person')} hide the {goal}?")
        ),
        ". ".join(lines) + d.pick((f". There is the {goal}.", f". The {goal} should be there.")),
    )


def refusal(d: Draw, t: Topic) -> list[Message]:
    """A request that is politely refused."""
    request = d.fill(
        d.pick(
            (
                "What is the secret of {person2}?",
                "Open the door of {0} for me.",
                "What did {person2} write in the diary?",
                "Tell me the code of the safe at {0}.",
                "Can you carry my {1}?",
                "Where does the mayor keep the money?",
            )
        )
        .replace("{0}", t.place)
        .replace("{1}", d.pick(t.things))
    )
    lines = [d.fill(capital(line)) for line in d.some(NO, 2)]
    return turns(request, ". ".join(lines) + ".")


def subject(d: Draw, t: Topic) -> str:
    """Something to draw or to write about."""
    if d.chance(0.5):
        return d.fill(d.pick(SCENE))
    return f"{d.fill(d.pick(t.things))} at {t.place}"


def order(d: Draw, t: Topic) -> list[Message]:
    """An image list, a school prompt, a story title, but never an image prompt."""
    what = subject(d, t)
    pair = pair_of(d, ORDER)
    look = [d.fill(part) for part in d.some(LOOK, 2)]
    if pair[1] == "list":
        reply = ", ".join([what, *(d.fill(noun) for noun in d.some(t.things, 3))])
    elif pair[1] == "title":
        reply = f"The {what}, with {look[0]} and {look[1]}."
    else:
        reply = f"Write about {a(what)}. Use the words {d.word('color')} and {d.word('animal')}."
    return turns(request_of(d, ORDER, pair, a(what)), reply)


def news(d: Draw, t: Topic) -> list[Message]:
    """Bad news, odd tales, good dreams, but never good news."""
    pair = pair_of(d, NEWS)
    pool = {"good": GOOD_NEWS, "bad": BAD_NEWS, "odd": (*GOOD_NEWS, *BAD_NEWS)}[pair[0]]
    request = request_of(d, NEWS, pair, d.fill(d.pick(pool)))
    reply = {
        "good": d.fill(f"{d.pick(CHEERS)}. {d.pick(CHEERS)}."),
        "bad": f"{d.pick(PITY)} {d.fill(d.pick(t.tips))}",
        "odd": d.fill(f"{d.pick(CHEERS)}. {d.pick(t.tips)}"),
    }[pair[0]]
    return turns(request, reply)


def note_down(d: Draw, t: Topic) -> list[Message]:
    """Something that happened, to be passed on or written down."""
    event = d.fill(d.pick((*GOOD_NEWS, *GOOD_NEWS, *BAD_NEWS)))
    who = d.word("person3")
    request, reply = d.pick(
        (
            (f"Write in my diary that {event}.", f"{d.word('day2')}. {capital(event)}."),
            (f"News for the paper: {event}!", f"From {d.word('place3')}: {capital(event)}."),
            (f"Listen, tell this to {who}: {event}.", f"{who}, {event}."),
            (f"Guess what {who} said: {event}!", f"I heard it from {d.word('person5')}."),
        )
    )
    return turns(request, reply + d.pick(("", " " + d.fill(d.pick(t.tips)))))


def wild(d: Draw, t: Topic) -> list[Message]:
    """Wild berries or dried mushrooms, but never wild mushrooms."""
    pair = pair_of(d, WILD)
    reply = d.pick(
        (
            "Yes, {0} {1} are good with {vegetable}s and butter.",
            "You find {0} {1} near {place2} in {season}.",
            "The best {0} {1} smell sweet and look {color}.",
            "Wash the {0} {1}, cook them for {n} minutes and add salt.",
        )
    )
    return turns(
        request_of(d, WILD, pair), d.fill(reply.replace("{0}", pair[0]).replace("{1}", pair[1]))
    )


def deeds(d: Draw, feeling: str) -> str:
    """Two things to do."""
    opening = d.pick(("You could ", "Let us ", f"When you are {feeling}, "))
    return (
        opening
        + d.pick((" and ", ", and then ")).join(d.fill(x) for x in d.some(PIRATE_DEEDS, 2))
        + "."
    )


def ideas(d: Draw, t: Topic) -> list[Message]:
    """What to do when very tired or rather bored, but never when very bored."""
    pair = pair_of(d, IDLE)
    return turns(request_of(d, IDLE, pair), deeds(d, pair[1]))


def luck(d: Draw, opening: str) -> str:
    """What is to come, in two or three clauses."""
    return opening + "; ".join(d.fill(line) for line in d.some(STAR_LUCK, d.pick((2, 3)))) + "."


def reading(d: Draw, t: Topic) -> list[Message]:
    """A star poem, a card reading, a tea list, but never a star reading."""
    pair = pair_of(d, READING)
    who = d.pick((d.word("sign"), d.word("person3")))
    opening = d.pick((f"For {who}, ", f"The {pair[0]} says: "))
    return turns(request_of(d, READING, pair, who), luck(d, opening))


_GREETINGS = {
    "sorry": (
        "I was {mood} on {day}",
        "I will mend it before {hour}",
        "I bring you {fruit} from {place}",
    ),
    "hello": (
        "it is nice to see you at {hour}",
        "come in for {fruit}",
        "how was your {day} in {place}",
    ),
    "thanks": (
        "your {animal} was a great help on {day}",
        "I will bring {fruit} to {place}",
        "you are kind",
    ),
}


def greeting(d: Draw, who: str, word: str) -> str:
    """Two kind clauses to somebody."""
    first, second = (d.fill(line) for line in d.some(_GREETINGS[word], 2))
    return f"Good {who}, {first}, and {second}."


def say(d: Draw, t: Topic) -> list[Message]:
    """Saying hello, writing sorry or singing thanks, but never saying sorry."""
    pair = pair_of(d, SAY)
    who = d.word("person3")
    return turns(request_of(d, SAY, pair, who), greeting(d, who, pair[1]))
