// What are the words of texts, and which of them are near a mistyped one? Nothing here touches the
// page.
//
// Texts are folded: without case, accents, compatibility forms, characters that cannot be seen and
// the curves of quotation marks.
// A word is a run of letters, digits and underscores; a run of anything else but space counts, too,
// so that emoji and operators are found. All distinct words stand once, in one text and in typed
// arrays: a hundred thousand labels hold millions of words, and objects for each would take seconds.
"use strict";
globalThis.WA ??= {};
{
  const FOREIGN = /[^\0-\x7f]+/gu;
  // Combining marks and characters that cannot be seen.
  const UNSEEN = /[\p{M}\p{Cf}\u115f\u1160\u3164\uffa0]/gu;
  const SINGLE_QUOTES = /[\u2018-\u201b\u2032]/gu, DOUBLE_QUOTES = /[\u201c-\u201f\u2033]/gu;
  const IN_WORD = /[\p{L}\p{N}_]/u;
  const SPACE = 1, SYMBOL = 2, WORD = 3;
  const LINE = 10;

  const foldForeign = (text) => text.replace(SINGLE_QUOTES, "'").replace(DOUBLE_QUOTES, "\"").normalize("NFKD").replace(UNSEEN, "")
    .toLowerCase().replaceAll("\u03c2", "\u03c3");
  // Lines stay lines: no character decomposes into a line break.
  const fold = (text) => text.replace(FOREIGN, foldForeign).toLowerCase();

  const known = new Map();
  const kindOf = (point) => {
    let kind = known.get(point);
    if (!kind) {
      const character = String.fromCodePoint(point);
      kind = IN_WORD.test(character) ? WORD : /\s/u.test(character) ? SPACE : SYMBOL;
      known.set(point, kind);
    }
    return kind;
  };
  const ascii = Uint8Array.from({ length: 128 }, (_, code) => kindOf(code));

  // Whether a word may begin or end before the character at a place: there or before it stands none.
  const isEdge = (text, at) => {
    if (at <= 0 || at >= text.length) return true;
    const after = text.codePointAt(at), low = (text.charCodeAt(at - 1) & 0xfc00) === 0xdc00;
    return kindOf(text.codePointAt(at - (low ? 2 : 1))) !== kindOf(after);
  };

  // Calls `found(start, end, hash, line)` for every word of a text, and counts its lines from 0.
  const eachWord = (text, found) => {
    let line = 0, start = 0, open = SPACE, hash = 0;
    for (let at = 0; at < text.length; at += 1) {
      const code = text.charCodeAt(at);
      let kind, wide = false;
      if (code < 128) kind = ascii[code];
      else {
        const point = text.codePointAt(at);
        wide = point > 0xffff;
        kind = kindOf(point);
      }
      if (kind !== open) {
        if (open !== SPACE) found(start, at, hash, line);
        open = kind;
        start = at;
        hash = 0;
      }
      if (code === LINE) line += 1;
      hash = (Math.imul(hash, 31) + code) | 0;
      if (wide) {
        at += 1;
        hash = (Math.imul(hash, 31) + text.charCodeAt(at)) | 0;
      }
    }
    if (open !== SPACE) found(start, text.length, hash, line);
  };

  // The words of a query, by space. Quotes and stops at the ends of a word are typing, not meaning.
  const wordsOf = (query) => fold(query).split(/\s+/u)
    .map((word) => IN_WORD.test(word) ? word.replace(/^[\p{P}\p{Sk}]+|[\p{P}\p{Sk}]+$/gu, (edge) => edge.replace(/[^_]/gu, "")) : word)
    .filter(Boolean);

  // The runs that a word of a query is made of: "l07.up" has three.
  const runsOf = (word) => {
    const runs = [];
    eachWord(word, (start, end) => runs.push(word.slice(start, end)));
    return runs;
  };

  // Edits from one word to another, `limit` + 1 for more than that; a swap of neighbours is one.
  const edits = (a, b, limit) => {
    if (Math.abs(a.length - b.length) > limit) return limit + 1;
    let older = [], old = Array.from({ length: b.length + 1 }, (_, index) => index);
    for (let i = 1; i <= a.length; i += 1) {
      const now = [i];
      let least = i;
      for (let j = 1; j <= b.length; j += 1) {
        const cost = a[i - 1] === b[j - 1] ? 0 : 1;
        now[j] = Math.min(old[j] + 1, now[j - 1] + 1, old[j - 1] + cost);
        if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
          now[j] = Math.min(now[j], older[j - 2] + 1);
        }
        least = Math.min(least, now[j]);
      }
      if (least > limit) return limit + 1;
      [older, old] = [old, now];
    }
    return Math.min(old[b.length], limit + 1);
  };

  // A bit for each letter, so that words with too many letters apart are passed over unread.
  const lettersOf = (word) => {
    let bits = 0;
    for (let at = 0; at < word.length; at += 1) bits |= 1 << (word.charCodeAt(at) & 31);
    return bits;
  };
  const ones = (bits) => {
    bits -= (bits >>> 1) & 0x55555555;
    bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
    return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
  };

  const decoder = new TextDecoder("utf-16le");
  const grown = (array, least) => {
    if (array.length >= least) return array;
    const larger = new array.constructor(Math.max(least, 2 * array.length));
    larger.set(array);
    return larger;
  };

  // All distinct words, each with a number from 0 on.
  class Vocabulary {
    constructor() {
      this.size = 0;
      // Where each word begins in `letters`; one more tells where the last one ends.
      this.starts = new Int32Array(1024);
      this.letters = new Uint16Array(8192);
      this.hashes = new Int32Array(1024);
      // Word numbers + 1 by hash, 0 where there is none; at most half full.
      this.slots = new Int32Array(2048);
      // The words as texts, read when a query first needs them.
      this.words = [];
      this.bits = new Int32Array(1024);
      this.joined = null;
    }

    // The number of the word that stands in `text` from `start` to `end`, a new one if need be.
    number(text, start, end, hash) {
      const length = end - start, mask = this.slots.length - 1;
      let slot = Math.imul(hash, 0x9e3779b1) >>> 7 & mask;
      for (let held; (held = this.slots[slot]) > 0; slot = slot + 1 & mask) {
        const word = held - 1, from = this.starts[word];
        if (this.hashes[word] !== hash || this.starts[held] - from !== length) continue;
        let at = 0;
        while (at < length && this.letters[from + at] === text.charCodeAt(start + at)) at += 1;
        if (at === length) return word;
      }
      return this.#add(text, start, end, hash, slot);
    }

    #add(text, start, end, hash, slot) {
      const word = this.size, from = this.starts[word], stop = from + end - start;
      this.size += 1;
      this.starts = grown(this.starts, word + 2);
      this.hashes = grown(this.hashes, word + 1);
      this.letters = grown(this.letters, stop);
      for (let at = 0; at < end - start; at += 1) this.letters[from + at] = text.charCodeAt(start + at);
      this.starts[word + 1] = stop;
      this.hashes[word] = hash;
      this.slots[slot] = word + 1;
      this.joined = null;
      if (2 * this.size > this.slots.length) this.#spread();
      return word;
    }

    #spread() {
      this.slots = new Int32Array(2 * this.slots.length);
      const mask = this.slots.length - 1;
      for (let word = 0; word < this.size; word += 1) {
        let slot = Math.imul(this.hashes[word], 0x9e3779b1) >>> 7 & mask;
        while (this.slots[slot]) slot = slot + 1 & mask;
        this.slots[slot] = word + 1;
      }
    }

    // All words in one text, each between line breaks, and what near() passes words over by.
    #read() {
      if (this.joined !== null) return;
      this.bits = grown(this.bits, this.size);
      for (let word = this.words.length; word < this.size; word += 1) {
        const letters = this.letters.subarray(this.starts[word], this.starts[word + 1]);
        const text = letters.length < 1000 ? String.fromCharCode(...letters) : decoder.decode(letters);
        this.words.push(text);
        this.bits[word] = lettersOf(text);
      }
      this.joined = `\n${this.words.join("\n")}\n`;
    }

    // The words that hold `part`: their numbers, and how: 0 whole, 1 at the beginning, 2 inside.
    holding(part) {
      this.#read();
      const numbers = [], places = [], text = this.joined;
      let word = 0;
      for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + 1)) {
        // A word's letters begin after those of all before and a line break for each.
        let high = this.size - 1;
        while (word < high) {
          const middle = (word + high + 1) >> 1;
          if (this.starts[middle] + middle + 1 <= at) word = middle;
          else high = middle - 1;
        }
        const start = this.starts[word] + word + 1, end = this.starts[word + 1] + word + 1;
        numbers.push(word);
        places.push(at > start ? 2 : at + part.length < end ? 1 : 0);
        at = end;
      }
      return { numbers, places };
    }

    // Words within `limit` edits of `word`, nearest first; without any, those that begin like it.
    near(word, limit) {
      this.#read();
      const found = [], begun = [], bits = lettersOf(word), n = word.length;
      for (let other = 0; other < this.size; other += 1) {
        const own = this.bits[other], length = this.starts[other + 1] - this.starts[other];
        if (length < n - limit || ones(bits & ~own) > limit) continue;
        if (length > n && !found.length) begun.push(other);
        if (length <= n + limit && ones(own & ~bits) <= limit) {
          const distance = edits(word, this.words[other], limit);
          if (distance <= limit) found.push({ number: other, text: this.words[other], distance, begins: false });
        }
      }
      if (!found.length) {
        for (const other of begun) {
          const text = this.words[other], distance = edits(word, text.slice(0, n), limit);
          if (distance <= limit) found.push({ number: other, text, distance, begins: true });
        }
      }
      return found.sort((a, b) => a.distance - b.distance || a.number - b.number);
    }
  }

  Object.assign(globalThis.WA, { Vocabulary, fold, eachWord, isEdge, wordsOf, runsOf, edits });
}
