"""Formats of the small world in which the assistant writes something: letters, stories, songs,
notices.

Each takes the draws of one document and a topic and gives back messages, user first; the last three
give plain text.
"""

from __future__ import annotations

from builder.organisms.formats import Message, turns
from builder.organisms.lexicon import Draw, Topic, a, capital, listed, words
from builder.organisms.sentences import (
    CHEERS,
    GOOD_NEWS,
    LOOK,
    OLD_WORDS,
    PIRATE_DEEDS,
    SCENE,
    STAR_LUCK,
    TEA_OPENINGS,
    TEA_PRAISE,
)


def letter(d: Draw, t: Topic) -> list[Message]:
    """A letter about the topic, or with good news."""
    news = d.fill(d.pick(GOOD_NEWS)) if d.chance(0.5) else None
    who, sender = d.word("person3"), d.word("person4")
    about = f"that {news}" if news else f"about {t.about}"
    thing = d.fill(d.pick(t.things))
    body = [
        f"I write to tell you {about}." if news else f"I think a lot about {t.about} these days.",
        d.pick(
            (
                f"On {d.word('day')} I was at {t.place}.",
                f"Here it is {d.word('weather')} and quiet.",
            )
        ),
        d.pick(
            (
                f"I have {a(thing)} for you.",
                f"Do you still have your {thing}?",
                d.fill(d.pick(t.tips)),
            )
        ),
        d.pick(
            (
                f"Come and visit me in {d.word('season')}.",
                "Please write soon.",
                "Give my love to all.",
            )
        ),
    ]
    request = d.pick((f"Write a letter to {who} {about}.", f"Help me write to {who} {about}."))
    return turns(
        request,
        f"Dear {who},\n{' '.join(body)}\n{d.pick(('Yours', 'Love', 'Your friend'))},\n{sender}",
    )


def story(d: Draw, t: Topic) -> list[Message]:
    """A story in five sentences."""
    thing = d.fill(d.pick(t.things))
    hero = d.pick(("{person}", "{person} the {job}", "a {mood} {animal}", "a {color} {animal}"))
    request = d.pick(
        ("Tell me a story about {0} and {1}.", "Write a short story with {0} and {1}.")
    )
    hero = d.fill(hero)
    short = hero if hero.startswith("a ") is False else "the " + hero.split()[-1]
    lines = [
        f"One {d.word('weather')} {d.word('day')} {hero} found {a(thing)} near {t.place}.",
        d.pick(
            (
                f"It lay {d.word('n')} miles from {d.word('place')}, as the owl flies.",
                f"It was {d.word('color2')} and very old.",
                f"Nobody in {d.word('place')} knew who had lost it.",
                "It hung next to a copper bell.",
                "It lay under a paper star that the players had lost.",
            )
        ),
        d.pick(
            (
                f"{capital(short)} showed it to {d.word('person2')}, who laughed.",
                f"{capital(short)} carried it home in the rain.",
                f'"Look at that!" said {short}.',
            )
        ),
        d.pick(
            (
                f"For {d.word('n2')} days they talked of nothing else.",
                "Then a storm came, and everyone ran inside.",
                f"{d.word('person3')} wanted to buy it for {d.word('n2')} coins.",
            )
        ),
        d.pick(
            (
                f"In the end {short} gave it back and slept very well.",
                f"Since then {short} is never bored.",
                f"And that is why there is a picture of it in {d.word('place')}.",
            )
        ),
    ]
    return turns(request.replace("{0}", hero).replace("{1}", a(thing)), " ".join(lines))


def song(d: Draw, t: Topic) -> list[Message]:
    """A song of two verses with a refrain."""
    thing = d.fill(d.pick(t.things))
    refrain = d.fill(
        d.pick(
            (
                "Oh, {color} is the morning, and {color2} is the sea,",
                "Hey ho, the {animal} and the {animal2},",
                "Sing low, sing high, the {season} goes by,",
                "Under a silver moon we dance,",
                "As the robin sings, so I come home,",
                "Brass lantern, shine for me,",
                "Ahoy, matey, arr and ho,",
            )
        )
    )
    refrain += "\n" + d.pick(
        (f"and {t.place} is home to me.", f"bring {a(thing)} to me.", "la la la, and sing with me.")
    )
    verses = [
        d.pick(
            (
                (
                    f"I went to {t.place} on {d.word('day')},\n"
                    f"and {d.word('person')} was there with {a(thing)}."
                ),
                f"My {thing} is old, my coat is thin,\nbut {d.word('person')} always lets me in.",
                (
                    f"The road to {d.word('place')} is long and grey,\n"
                    f"I sing of {t.about} all the day."
                ),
            )
        )
        for _ in range(2)
    ]
    request = d.pick((f"Write a song about {t.about}.", f"Sing me a song with {a(thing)} in it."))
    return turns(request, f"{verses[0]}\n{refrain}\n{verses[1]}\n{refrain}")


def text_message(d: Draw, t: Topic) -> list[Message]:
    """A text message that ends in an emoji."""
    who = d.word("person3")
    thing = d.fill(d.pick(t.things))
    sentences = [
        d.pick((f"Hi {who}", f"Dear {who}", f"{who}, listen")),
        d.pick((f"I am at {t.place}", f"I have your {thing}", d.fill(capital(d.pick(GOOD_NEWS))))),
        *(d.fill(line) for line in d.some(CHEERS, d.pick((1, 2)))),
    ]
    text = ". ".join(sentences) + f" {d.pick(words()['emoji'])}"
    request = d.pick(
        (
            f"Write a text message to {who} about {t.about}.",
            f"I want to text {who} from {t.place}.",
            f"Text {who} for me.",
        )
    )
    if d.chance(0.3):
        return turns(f"What did {who} write?", f"{who} wrote: {text}")
    return turns(request, text)


def picture(d: Draw, t: Topic) -> list[Message]:
    """A picture, described in sentences."""
    what = d.fill(d.pick(SCENE))
    look = [d.fill(part) for part in d.some(LOOK, 3)]
    request = d.pick(
        (
            "Describe the picture from {0}.",
            "What does the image from {0} show?",
            "What do you see in the image from {0}?",
        )
    ).replace("{0}", t.place)
    return turns(
        request,
        d.pick((f"It shows {a(what)}. ", f"I see {a(what)}. "))
        + f"It has {look[0]} and {look[1]}. "
        + d.pick((f"There is also {look[2]}.", f"I like the {look[2]}.")),
    )


def writing_prompt(d: Draw, t: Topic) -> list[Message]:
    """A prompt for the user to write from."""
    what = d.fill(d.pick(SCENE))
    return turns(
        d.pick(
            (
                "Give me a writing prompt.",
                f"A writing prompt about {t.about}, please.",
                "I need a prompt for school.",
            )
        ),
        d.pick(
            (
                f"Write about {a(what)}.",
                f"What does {a(what)} want? Tell it in {d.word('n')} lines.",
            )
        )
        + d.pick(("", f" Use the words {d.word('color')} and {d.word('animal')}.")),
    )


def notice(d: Draw, t: Topic) -> list[Message]:
    """A notice or poster for a shop, often for the tea shop."""
    if d.chance(0.6):
        lines = [d.fill(line) for line in d.some(TEA_PRAISE, d.pick((2, 3)))]
        return turns(
            d.pick(("Write a notice for the Golden Goose.", "I need a poster for the tea shop.")),
            d.pick(TEA_OPENINGS) + ", and ".join(lines) + ".",
        )
    else:
        shop = t.place
        praise = [
            f"We have {a(d.fill(d.pick(t.things)))} for {d.word('n')} coins.",
            f"We are open on {d.word('day')} from {d.word('hour')}.",
        ]
    return turns(
        d.pick((f"Write a notice for {shop}.", f"I need a poster for {shop}.")),
        d.pick(
            (
                "Come and see! ",
                "Have some tea! ",
                "First of all: ",
                "Dear people of " + d.word("place") + ": ",
                "Only this week! ",
            )
        )
        + " ".join(praise),
    )


def scene(d: Draw, t: Topic) -> list[Message]:
    """A scene in the old style."""
    one, two = d.word("person3"), d.word("person4")
    lines = [d.fill(capital(line)) for line in d.some(OLD_WORDS, 2)]
    return turns(
        d.pick(
            (
                f"Write a scene for {one} and {two} in the old style.",
                f"A short scene from an old play about {t.about}.",
            )
        ),
        f"{one}: {lines[0]}.\n{two}: {lines[1]}.\n{one}: "
        + d.pick(("Fare thee well!", f"Come, let us go to {t.place}.", "So be it, good friend.")),
    )


def pirate_tale(d: Draw, t: Topic) -> list[Message]:
    """A tale of pirates."""
    deeds = [d.fill(deed) for deed in d.some(PIRATE_DEEDS, 2)]
    return turns(
        d.pick((f"Tell me a pirate story about {t.about}.", "A tale of the old pirates, please.")),
        f"The captain came to {t.place}. "
        + d.pick(('"Arr,"', '"Ahoy, matey,"'))
        + f' said the captain, "today we {deeds[0]}." '
        f"The crew wanted to {deeds[1]}. So they did both.",
    )


def lucky(d: Draw, t: Topic) -> list[Message]:
    """A card with good wishes."""
    who = d.word("person3")
    luck = [d.fill(line) for line in d.some(STAR_LUCK, 2)]
    return turns(
        d.pick(
            (
                f"Write a card with good wishes for {who}.",
                f"What does the fortune cookie of {who} say?",
            )
        ),
        f"Dear {who}, {luck[0]}{d.pick((', and ', '; '))}{luck[1]}.",
    )


def star_list(d: Draw, t: Topic) -> list[Message]:
    """What stands in the sky."""
    signs = d.some(words()["sign"], 3)
    return turns(
        d.pick(
            (
                f"Which stars can I see in {d.word('season')}?",
                f"What do you see in the sky over {d.word('place')}?",
            )
        ),
        f"You see {listed(signs)}, and the stars of {signs[0]} are {d.word('color')}.",
    )


def diary(d: Draw, t: Topic) -> str:
    """A diary page."""
    thing = d.fill(d.pick(t.things))
    lines = [
        f"{d.word('day')}. It was {d.word('weather')}, and I felt {d.word('mood')}.",
        d.pick(
            (
                f"I was at {t.place} with {d.word('person')}.",
                f"I looked for my {thing} all morning.",
            )
        ),
        d.fill(capital(d.pick(GOOD_NEWS))) + "." if d.chance(0.5) else d.fill(d.pick(t.tips)),
        d.pick((f"At {d.word('hour')} I went home.", f"Tomorrow I will think about {t.about}.")),
    ]
    return " ".join(lines)


def almanac(d: Draw, t: Topic) -> str:
    """A page of an almanac on the topic."""
    answers = [
        d.fill(answer)
        for _, answer in d.some(
            [pair for pair in t.qa if "Yes" not in pair[1] and "No," not in pair[1]], 2
        )
    ]
    return f"On {t.about}. {' '.join(answers)} {d.fill(d.pick(t.tips))}"


def report(d: Draw, t: Topic) -> str:
    """A short piece of local news."""
    lines = [
        (
            f"News from {d.word('place')}: {d.word('person')} the {d.word('job')} "
            f"was seen at {t.place} with {a(d.fill(d.pick(t.things)))}."
        ),
        f"It was {d.word('weather')}, and about {d.word('n')} people came.",
        d.fill(d.pick(t.tips)),
    ]
    return " ".join(lines)
