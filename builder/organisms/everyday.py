"""Everyday formats of the small world: questions, advice, small talk, lists, sums, shopping.

Each takes the draws of one document and a topic and gives back messages, user first.
"""

from __future__ import annotations

from builder.organisms.formats import Message, turns
from builder.organisms.lexicon import Draw, Topic, a, capital, listed, small
from builder.organisms.sentences import (
    ANSWERS,
    CHEERS,
    DIG,
    GOOD_NEWS,
    LOOK,
    NO,
    OLD_WORDS,
    PIRATE_DEEDS,
    REMARKS,
    SCENE,
    STAR_LUCK,
    TEA_PRAISE,
    TIDE,
)

_OPENINGS = (
    "",
    "",
    "",
    "",
    "Hello! ",
    "Quick question: ",
    "Can you help me? ",
    "Please tell me: ",
    "Good morning. ",
)


def ask(d: Draw, t: Topic) -> list[Message]:
    """A question about the topic and its answer."""
    question, answer = d.pick(t.qa)
    question, answer = d.fill(question), d.fill(answer)
    opening = d.pick(_OPENINGS)
    if opening.endswith(": "):
        question = small(question)
    if d.chance(0.25):
        answer += " " + d.fill(d.pick(t.tips))
    return turns(opening + question, answer)


def ask_twice(d: Draw, t: Topic) -> list[Message]:
    """Two questions about the topic, one after the other."""
    (q1, a1), (q2, a2) = d.some(t.qa, 2)
    follow = d.pick(("And ", "Thank you. And ", "I see. "))
    second = d.fill(q2)
    return turns(
        d.fill(q1),
        d.fill(a1),
        follow + (second if follow == "I see. " else small(second)),
        d.fill(a2),
    )


def tip(d: Draw, t: Topic) -> list[Message]:
    """A request for advice and one tip."""
    ask_for = d.pick(
        (
            f"Give me a tip about {t.about}.",
            f"What should I know about {t.about}?",
            f"I am new to {t.about}. Any advice?",
            f"Do you have a tip for me about {t.about}?",
        )
    )
    return turns(
        ask_for, d.pick(("Here is a tip: ", "Yes. ", "Gladly. ", "")) + d.fill(d.pick(t.tips))
    )


def tips(d: Draw, t: Topic) -> list[Message]:
    """A request for several tips, answered as a list."""
    count = d.pick((2, 3, 4))
    number = {2: "two", 3: "three", 4: "four"}[count]
    lines = [f"- {d.fill(line)}" for line in d.some(t.tips, count)]
    return turns(
        d.pick((f"Give me {number} tips about {t.about}.", f"List {number} rules for {t.about}.")),
        "\n".join(lines),
    )


def steps(d: Draw, t: Topic) -> list[Message]:
    """How something is done, as numbered steps or in prose."""
    title, *rest = d.pick(t.howto)
    request = d.pick(
        (
            "How do I {0}?",
            "Tell me step by step how to {0}.",
            "I want to {0}. Where do I start?",
            "Explain how to {0}.",
        )
    ).replace("{0}", d.fill(title))
    lines = [d.fill(line) for line in rest]
    if d.chance(0.6):
        return turns(request, "\n".join(f"{i}. {line}." for i, line in enumerate(lines, 1)))
    first, *middle, last = [small(line) for line in lines]
    prose = (
        f"First {first}. " + "".join(f"Then {line}. " for line in middle) + f"At the end {last}."
    )
    return turns(request, prose)


def trouble(d: Draw, t: Topic) -> list[Message]:
    """A complaint, pity and advice; sometimes thanks."""
    complaint, advice = d.pick(t.trouble)
    pity = d.pick(
        (
            "I am sorry to hear that. ",
            "That happens to everyone. ",
            "Oh dear. ",
            "Do not worry. ",
            "",
        )
    )
    texts = [
        d.fill(complaint) + d.pick(("", " What can I do?", " Please help.")),
        pity + d.fill(advice),
    ]
    if d.chance(0.3):
        texts += [
            d.pick(("Thank you!", "I will try that.", "That is good advice.")),
            d.pick(_WELCOME),
        ]
    return turns(*texts)


_WELCOME = ("You are welcome.", "Good luck with it.", "Gladly. Tell me how it goes.", "Any time.")


def smalltalk(d: Draw, t: Topic) -> list[Message]:
    """A chat about nothing much, over several turns."""
    hello = d.pick(("Hello!", "Good morning!", "Hi there.", "Good day to you.", "Good evening."))
    texts = [
        hello,
        d.pick(
            ("Hello! How are you today?", "Good day! What is new?", "Hi! Nice to hear from you.")
        ),
    ]
    thing = d.fill(d.pick(t.things))
    texts += [
        d.pick(
            (
                f"I am {d.word('mood')}. I was at {t.place} today.",
                f"A little {d.word('mood')}. I bought {a(thing)}.",
                f"I feel {d.word('mood')}, because I looked for {a(thing)} all day.",
                f"I am {d.word('mood')} and I think about {t.about}.",
            )
        ),
        d.pick(("That sounds nice. ", "Tell me more about it. ", "I like that. ", ""))
        + d.fill(d.pick(t.tips)),
    ]
    if d.chance(0.5):
        texts += [
            d.pick(("Thank you, goodbye!", "I have to go now.", "See you soon.")),
            d.pick(_FAREWELL),
        ]
    return turns(*texts)


_FAREWELL = (
    "Goodbye, and enjoy your day.",
    "See you soon!",
    "Take care.",
    "Good night, sleep well.",
)


def mood(d: Draw, t: Topic) -> list[Message]:
    """The user says how they feel."""
    feeling = d.word("mood")
    thing = d.fill(d.pick(t.things))
    reply = d.pick(
        (
            f"A walk to {t.place} may help when you are {feeling}.",
            f"Being {feeling} is fine. Why not spend an hour on {t.about}?",
            f"When I am {feeling}, I like to think of {a(thing)}.",
        )
    )
    return turns(f"I am {feeling} today.", reply)


def guess(d: Draw, t: Topic) -> list[Message]:
    """A guessing game."""
    thing, other = (d.fill(noun) for noun in d.some(t.things, 2))
    return turns(
        f"I am thinking of something from {t.place}. Guess!",
        f"Is it {a(thing)}?",
        d.pick(("No. Try again.", "No, but you are close.")),
        f"Then it must be {a(other)}!",
        "Yes, that is right.",
        d.pick(("Hooray! That was fun.", "Good, now it is my turn.", "I am lucky today.")),
    )


def things(d: Draw, t: Topic) -> list[Message]:
    """Things one finds in a place, as a list or in prose."""
    count = d.pick((2, 3, 4))
    number = {2: "two", 3: "three", 4: "four"}[count]
    nouns = [d.fill(noun) for noun in d.some(t.things, count)]
    request = f"Name {number} things you find at {t.place}."
    if d.chance(0.5):
        return turns(request, "\n".join(f"- {capital(a(noun))}" for noun in nouns))
    return turns(request, f"You find {listed([a(noun) for noun in nouns])} there.")


def packing(d: Draw, t: Topic) -> list[Message]:
    """A list in one line, with commas."""
    pool = [
        *d.pick((t.things, t.things)),
        "{color} hat",
        "box of {fruit}",
        "map of {place}",
        "warm coat",
    ]
    nouns = [a(d.fill(noun)) for noun in d.some(pool, d.pick((3, 4, 5)))]
    request = d.pick(
        (
            "Make a packing list for {place2} in one line.",
            "What do I take to {place2}? Only a short list, please.",
            "Write my shopping list for {day}.",
        )
    )
    return turns(d.fill(request), ", ".join(nouns))


def recipe(d: Draw, t: Topic) -> list[Message]:
    """A recipe: what you need and what to do."""
    dish = d.fill(
        d.pick(("{jam} cake", "{vegetable} soup", "{vegetable} pie", "{jam} jam", "{color} salad"))
    )
    need = d.some(
        (
            "flour",
            "butter",
            "salt",
            "sugar",
            "honey",
            "{n} eggs",
            "{fruit}",
            "{vegetable}s",
            "cream",
            "mushrooms",
        ),
        4,
    )
    body = d.some(
        (
            "Cut everything small.",
            "Mix it in a big bowl.",
            "Cook it for {n2} minutes.",
            "Let it cool by the window.",
            "Serve it with bread.",
            "Stir until your arm is tired.",
        ),
        3,
    )
    request = d.pick(
        (
            "A recipe for {0}, please.",
            "How does {person} make {0}?",
            "Write down the recipe for {0}.",
        )
    )
    text = f"{capital(dish)}\nYou need {d.fill(listed(need))}.\n" + d.fill(" ".join(body))
    return turns(d.fill(request.replace("{0}", dish)), text)


def arithmetic(d: Draw, t: Topic) -> list[Message]:
    """A word problem, worked out in steps."""
    x, y = d.rng.randint(2, 20), d.rng.randint(2, 20)
    item = d.pick(("eggs", "apples", "coins", "books", "cups", "buttons"))
    who, other = d.word("person"), d.word("person2")
    if d.chance(0.5):
        question = f"{who} has {x} {item} and buys {y} more. How many {item} are there?"
        work = f"Start with {x}. Add {y}. {x} + {y} = {x + y}. {who} has {x + y} {item}."
    else:
        x, y = max(x, y), min(x, y)
        question = f"{who} has {x} {item} and gives {y} to {other}. How many are left?"
        work = f"Start with {x}. Take away {y}. {x} - {y} = {x - y}. {who} has {x - y} {item} left."
    return turns(question, work)


def sum_only(d: Draw, t: Topic) -> list[Message]:
    """A bare sum."""
    x, y = d.rng.randint(1, 20), d.rng.randint(1, 20)
    return turns(d.pick((f"What is {x} + {y}?", f"Add {x} and {y}.")), f"{x} + {y} = {x + y}")


def shop(d: Draw, t: Topic) -> list[Message]:
    """Buying something."""
    thing = d.fill(
        d.pick((*t.things, "copper bell", "paper star", "heron feather", "basket of mushrooms"))
    )
    coins = f"{d.word('n')} coins"
    if d.chance(0.4):
        return turns(f"How much is the {thing}?", f"The {thing} costs {coins}.")
    return turns(
        d.pick(
            (
                f"I would like to buy {a(thing)}.",
                f"Do you sell {a(thing)}?",
                f"I look for {a(thing)}.",
            )
        ),
        d.pick(
            (
                f"Yes, you find one at {t.place}, for {coins}.",
                f"{d.word('person')} sells one for {coins}.",
            )
        ),
    )


def remark(d: Draw, t: Topic) -> list[Message]:
    """The user says something in passing."""
    text = d.fill(d.pick(REMARKS))
    reply = d.pick(ANSWERS) + d.pick(
        ("", " " + d.fill(d.pick(t.tips)), f" I think of {t.about} today.")
    )
    return turns(text, reply)


def repeat(d: Draw, t: Topic) -> list[Message]:
    """The assistant reads a line back."""
    pool = d.pick(
        (
            REMARKS,
            GOOD_NEWS,
            CHEERS,
            PIRATE_DEEDS,
            OLD_WORDS,
            DIG,
            TIDE,
            LOOK,
            SCENE,
            STAR_LUCK,
            TEA_PRAISE,
            NO,
        )
    )
    text = capital(d.fill(d.pick(pool))).rstrip(".?!")
    return turns(
        d.pick((f"Say it after me: {text}.", f"Read this line: {text}.", f"Repeat: {text}.")),
        d.pick((f"{text}.", f"{text}. Well said!", f"You said: {small(text)}.")),
    )


def opposite(d: Draw, t: Topic) -> list[Message]:
    """The opposite of a word."""
    pairs = (
        ("hot", "cold"),
        ("big", "small"),
        ("old", "new"),
        ("dry", "wet"),
        ("loud", "quiet"),
        ("early", "late"),
    )
    x, y = d.pick(pairs)
    if d.chance(0.5):
        x, y = y, x
    return turns(f"What is the opposite of {x}?", f"The opposite of {x} is {y}.")


def polite(d: Draw, t: Topic) -> list[Message]:
    """A rude request made polite."""
    thing = d.fill(d.pick(t.things))
    verb = d.pick(("Bring me", "Give me", "Show me"))
    return turns(
        f"Say it politely: {verb} the {thing}!", f"Could you please {verb.lower()} the {thing}?"
    )


def better(d: Draw, t: Topic) -> list[Message]:
    """Which of two things is better."""
    x, y = (d.fill(noun) for noun in d.some(t.things, 2))
    return turns(
        f"What is better, {a(x)} or {a(y)}?",
        d.pick(
            (
                f"For {t.place}, {a(x)}.",
                f"I like {a(y)} more.",
                f"It depends, but {a(x)} is never wrong.",
            )
        ),
    )
