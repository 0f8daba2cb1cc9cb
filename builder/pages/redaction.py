"""What must no page show? E-mail addresses, phone numbers, keys, addresses of machines, own words.

What is found is covered character by character, so that tokens stay where they are. Phone numbers
are found by libphonenumber's rules, keys by those of detect-secrets, words by Aho-Corasick; the
others have a form of their own. Windows are cut out of documents: an e-mail address or a key that
begins at a window's end counts as one, and so does what an address ends with at its beginning.
What has no form is not found: names of people, places, what somebody tells of themselves. Nor are
numbers of lines that are written as in no country but a reader's own, save the United States'.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import phonenumbers
from ahocorasick_rs import AhoCorasick
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.basic_auth import BasicAuthDetector

from builder.config import SiteSettings
from builder.errors import SiteError
from builder.store import Mask, RunStore

#: What stands for a covered character. It takes the room of a letter and is no letter.
COVER = "\N{FULL BLOCK}"
#: What can be found, and how pages name one and several.
KINDS: dict[str, tuple[str, str]] = {
    "email": ("e-mail address", "e-mail addresses"),
    "phone": ("phone number", "phone numbers"),
    "key": ("key", "keys"),
    "ip": ("address of a machine", "addresses of machines"),
    "word": ("listed word", "listed words"),
}
Span = tuple[str, int, int]

_NAME, _HOST = r"[\w.+%-]+", r"(?:[\w-]+\.)+"
_EMAIL = re.compile(
    rf"(?<![\w.+%-]){_NAME}@{_HOST}[^\W\d_]{{2,}}|\A@{_HOST}[^\W\d_]{{2,}}|"
    rf"(?<![\w.+%-]){_NAME}@[\w.-]*\Z"
)
_DIGIT = re.compile(r"\d")
#: Seven digits with little in between: less is no number of a line.
_DIGITS = re.compile(r"\d(?:[^\w\n]{0,3}\d){6}")
#: The beginning of an international number that goes on behind the window.
_CUT_PHONE = re.compile(r"\+\d(?:[^\w\n]{0,3}\d){3,}\Z")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:.])")
#: No key is shorter, and nearly all hold a digit; few words of prose do both.
_STRETCH = re.compile(r"(?<![\w+/=.-])(?=[A-Za-z_+/=.-]*\d)[A-Za-z0-9_+/=.-]{16,}")
#: A key that the end of a window cuts begins at most so many characters before it.
_CUT_WITHIN = 120
_KEY = r"PRIVATE KEY(?: BLOCK)?-----"
_BREAK = r"(?:\r?\n|\\n)"
#: A block from its beginning, and one whose beginning lies before the window.
_BLOCK = re.compile(
    rf"-----BEGIN [A-Z ]*{_KEY}.*?(?:-----END [A-Z ]*-----|\Z)|"
    rf"\A(?:[A-Z -]*{_KEY})?[A-Za-z0-9+/=:,\r\n\\. -]*-----END [A-Z ]*{_KEY}|"
    rf"\A[A-Z -]{{1,30}}{_KEY}.*",
    re.DOTALL,
)
#: Lines of a block as windows from its middle have them: 64 letters, and what stands next to them.
_LINES = re.compile(
    rf"(?:\A[A-Za-z0-9+/]*{_BREAK})?(?:(?<=\n)|(?<=\\n)|\A)"
    r"(?=[A-Z0-9+/]*[a-z])(?=[a-z0-9+/]*[A-Z])"
    rf"[A-Za-z0-9+/]{{64}}(?:{_BREAK}[A-Za-z0-9+/]+={{0,2}})*(?={_BREAK}|[\\\r]?\Z)|"
    rf"\A(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])(?=\D*\d)[A-Za-z0-9+/]{{8,65}}{_BREAK}[A-Za-z0-9+/]{{8,}}"
    r"[\\\r]?\Z"
)
#: The end of a signed token that begins before the window.
_TOKEN_END = re.compile(r"\A(?=\D*\d)[\w-]+\.[\w-]{40,}(?![\w-])")
#: Beginnings of keys of services, where the end of a window cuts them short.
_CUT_KEY = re.compile(
    r"(?<![\w-])(?:sk-|sk_live_|rk_live_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza|"
    r"hf_|npm_|pypi-|ya29\.|eyJ[\w-]*\.)[\w.-]{4,}\Z"
)
#: Keys that the rules of the library do not know, by their beginnings.
_BEGINNINGS = ("hf_", "sk-", "AIza")
_OWN_KEY = re.compile(
    r"(?<![\w-])(?:hf_[A-Za-z0-9]{30,}|sk-(?:ant|proj|or)-[\w-]{20,}|AIza[\w-]{35})"
)
#: Secrets of AWS have no beginning of their own, but a name before them; group 1 is the secret:
#: 40 letters and digits of all kinds, a session's more, or as many as the window has left.
_NAMED_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?i:(?:aws[\s_-]?)?secret[\s_-]?(?:access[\s_-]?)?key|"
    r"(?:aws[\s_-]?)(?:(?:session|security)[\s_-]?)?(?:token|secret|key|password))"
    r"(?:\s{0,2}\[[^\]\n]{0,24}\])?[\s\"'`\\=:>|,(]{1,12}"
    r"(?=[A-Za-z/+]*\d)(?=[^A-Z\s]*[A-Z])(?=[^a-z\s]*[a-z])"
    r"([A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])|[A-Za-z0-9/+]{100,}={0,2}|[A-Za-z0-9/+]{12,39}\Z)"
)
#: Those that go by entropy or by what stands before, which take code and prose for keys.
_UNUSED = frozenset({"KeywordDetector", "IPPublicDetector", "PrivateKeyDetector"})
_AROUND = " \t\n\r\"'`=:,;<>()[]{}"
#: Scripts that put no spaces between words begin here.
_UNSPACED = "\u2e80"


class Redactor:
    """Finds and covers what a site's settings say; the same text gives the same result."""

    def __init__(self, kinds: Iterable[str], words: Iterable[str] = ()) -> None:
        """``kinds`` are of KINDS; ``words`` are found whatever their case, as whole words."""
        self.kinds = tuple(kind for kind in _FINDERS if kind in set(kinds))
        self.words = tuple(sorted({_folded(word.strip()) for word in words} - {""}))
        self._words = AhoCorasick(self.words) if self.words else None
        self._keys: list[re.Pattern[str]] = []
        rules: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
        for rule in rules:
            if issubclass(rule, RegexBasedDetector) and rule.__name__ not in _UNUSED:
                # Some rules name a part of what they match as the secret: all of it is covered.
                self._keys += cast("Any", rule).denylist

    @classmethod
    def of(cls, settings: SiteSettings) -> Redactor:
        """That of a site; raises SiteError if its list of words cannot be read."""
        if not settings.words:
            return cls(settings.redact)
        try:
            lines = Path(settings.words).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SiteError(
                f"{settings.words}: the list of words (site.words) cannot be read as UTF-8 text, "
                f"one word or phrase a line: {error}"
            ) from error
        words = [line for line in lines if line.strip() and not line.startswith("#")]
        if not words:
            raise SiteError(
                f"{settings.words}: the list of words (site.words) has none; leave the setting out"
            )
        return cls(settings.redact, words)

    def __bool__(self) -> bool:
        return bool(self.kinds or self.words)

    @property
    def digest(self) -> str:
        """A short name for everything that its results depend on."""
        libraries = [
            importlib.metadata.version(name) for name in ("phonenumbers", "detect-secrets")
        ]
        told = repr((self.kinds, self.words, libraries))
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def spans(self, text: str) -> list[Span]:
        """(kind, start, end) of everything to cover, in order; none overlaps another."""
        found = [span for kind in self.kinds for span in _FINDERS[kind](self, text)]
        if self._words:
            found += self._listed(text)
        if len(found) < 2:
            return found
        kept: list[Span] = []
        for kind, start, end in sorted(found, key=lambda span: (span[1], -span[2])):
            if kept and start < kept[-1][2]:
                kept[-1] = (kept[-1][0], kept[-1][1], max(end, kept[-1][2]))
            else:
                kept.append((kind, start, end))
        return kept

    def _emails(self, text: str) -> Iterator[Span]:
        if "@" in text:
            for match in _EMAIL.finditer(text):
                yield "email", match.start(), match.end()

    def _phones(self, text: str) -> Iterator[Span]:
        if not _DIGIT.search(text):
            return
        if "+" in text and (cut := _CUT_PHONE.search(text)):
            yield "phone", cut.start(), cut.end()
        if not _DIGITS.search(text):
            return
        possible = phonenumbers.Leniency.POSSIBLE
        matcher: Any = phonenumbers.PhoneNumberMatcher
        for match in matcher(text, "US", possible, 1000):
            if match.raw_string.startswith("+") or phonenumbers.is_valid_number(match.number):
                yield "phone", match.start, match.end

    def _ips(self, text: str) -> Iterator[Span]:
        for pattern, gate in ((_IPV4, text.count(".") > 2), (_IPV6, text.count(":") > 1)):
            for match in pattern.finditer(text) if gate else ():
                try:
                    is_public = ipaddress.ip_address(match[0]).is_global
                except ValueError:
                    continue
                if is_public:
                    yield "ip", match.start(), match.end()

    def _secrets(self, text: str) -> Iterator[Span]:
        if "KEY" in text:
            yield from _matches(text, (_BLOCK,))
        yield from _matches(text, (_LINES, _TOKEN_END))
        if "://" in text:  # a password in an address need not look like a key
            yield from _matches(text, cast("Any", BasicAuthDetector).denylist)
        if any(beginning in text for beginning in _BEGINNINGS):
            yield from _matches(text, (_OWN_KEY,))
        folded = text.lower()
        if "aws" in folded or "secret" in folded:
            for found in _NAMED_KEY.finditer(text):
                yield "key", found.start(1), found.end(1)
        if cut := _CUT_KEY.search(text, max(0, len(text) - _CUT_WITHIN)):
            yield "key", cut.start(), cut.end()
        if not (_DIGIT.search(text) and _STRETCH.search(text)):
            return
        yield from _matches(text, self._keys)

    def _listed(self, text: str) -> Iterator[Span]:
        assert self._words is not None
        folded = _folded(text)
        for _, start, end in self._words.find_matches_as_indexes(folded, overlapping=True):
            if _is_edge(folded, start) and _is_edge(folded, end):
                yield "word", start, end


_FINDERS: dict[str, Callable[[Redactor, str], Iterator[Span]]] = {
    "email": Redactor._emails,
    "phone": Redactor._phones,
    "key": Redactor._secrets,
    "ip": Redactor._ips,
}


@dataclass(frozen=True, slots=True)
class Redacted:
    """What was covered in a run: every text that has something to cover, as it is shown."""

    shown: Mapping[str, str] = field(default_factory=dict)
    #: How many of each kind, over all distinct texts of windows, and in how many of those texts.
    counts: Mapping[str, int] = field(default_factory=dict)
    texts: int = 0
    all_texts: int = 0
    #: What was looked for, as :data:`KINDS` names it.
    kinds: tuple[str, ...] = ()

    def __call__(self, text: str) -> str:
        """A text of the run as pages show it; of the same length."""
        return self.shown.get(text, text)

    @property
    def mask(self) -> Mask | None:
        """What a store is opened with; None where nothing is to be covered."""
        return self if self.shown else None

    def lines(self) -> tuple[tuple[str, int], ...]:
        """(kind in words, how many) of everything that was looked for."""
        return tuple(
            (KINDS[kind][self.counts[kind] != 1], self.counts[kind]) for kind in self.kinds
        )


def redacted(store: RunStore, redactor: Redactor) -> Redacted:
    """All that is to be covered in a run, each distinct text looked at once.

    Labels and what labelers remark are covered as well, but counted are texts of the corpus only.
    """
    if not redactor:
        return Redacted()
    shown: dict[str, str] = {}
    counts: Counter[str] = Counter()
    texts = every = 0
    for text in store.every_text():
        every += 1
        if spans := redactor.spans(text):
            texts += 1
            counts.update(kind for kind, _, _ in spans)
            shown[text] = covered(text, spans)
    for text in store.every_remark():
        if text not in shown and (spans := redactor.spans(text)):
            shown[text] = covered(text, spans)
    kinds = (*redactor.kinds, *(("word",) if redactor.words else ()))
    return Redacted(shown, {kind: counts[kind] for kind in kinds}, texts, every, kinds)


def covered(text: str, spans: Sequence[Span]) -> str:
    """The text with COVER for every character of the spans but white space: of the same length."""
    parts, at = [], 0
    for _, start, end in spans:
        parts += [text[at:start], re.sub(r"\S", COVER, text[start:end])]
        at = end
    return "".join([*parts, text[at:]])


def _matches(text: str, patterns: Iterable[re.Pattern[str]]) -> Iterator[Span]:
    """All that these patterns match, without what may stand around a key."""
    for pattern in patterns:
        for match in pattern.finditer(text):
            key = match[0].strip(_AROUND)
            start = match.start() + match[0].index(key)
            yield "key", start, start + len(key)


def _folded(text: str) -> str:
    """The text in lower case, character by character: places stay what they are."""
    folded = text.lower()
    if len(folded) == len(text):
        return folded
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


def _is_edge(text: str, at: int) -> bool:
    """Whether a word may begin or end at this place."""
    if at in (0, len(text)):
        return True
    before, after = text[at - 1], text[at]
    return not (before.isalnum() and after.isalnum()) or max(before, after) >= _UNSPACED
