// Which rows answer a query, and how well? Nothing here touches the page.
//
// A row is a pole of a direction. It is found when every word of the query is a part of one of its
// words. Its score adds up, for each word of the query, the best of its places: the field's weight,
// more for a whole word than for a beginning and more for that than for the inside, times how rare
// the word is; a label of many words scores a little less. A word that is found nowhere is widened
// to the known words within one edit (two from eight letters), and so is each that is found where
// no row holds all. Before that a word may name a model: then it stands for all rows of it.
//
// Words are looked up in the vocabulary (search-words.js), rows in one list of places for each word
// and part: a query costs as many steps as its words have places, not as there is text.
"use strict";
globalThis.WA ??= {};
{
  const { FIELDS, PLACES, Part, Vocabulary, placeOf, wordsOf, runsOf } = WA;
  const WIDENED = [1, 0.9, 0.45];
  const SHORTEST = 4, LONG = 8;
  // What a row gets for a word that its model is called: the same for all of them.
  const OF_MODEL = 1;
  // How much less a label of twice the mean length scores.
  const LENGTH = 0.15;
  // Queries are typed letter by letter: what so many words have found is kept.
  const KEPT = 8;

  // The rows of either match, each by the better of both.
  const joined = (one, other, rest) => {
    const best = one.best.map((value, row) => Math.max(value, other.best[row]));
    let n = 0;
    for (const value of best) n += value > 0;
    return { best, n, ...rest };
  };

  // Who names two models wants both: no row is of two. The words of one model's name go together.
  const ofAnyModel = (matches) => {
    const named = matches.filter((match) => match.named && !match.words.length);
    if (named.length < 2 || named[0].best.some((_, row) => named.every((match) => match.best[row] > 0))) return matches;
    return [...matches.filter((match) => !named.includes(match)), named.reduce((one, other) => joined(one, other, {}))];
  };

  class Index {
    constructor() {
      this.parts = [];
      this.size = 0;
      this.vocabulary = new Vocabulary();
      this.matches = new Map();
      this.kept = new Map();
    }

    add(run, data) {
      const part = new Part(run, data, this.size);
      this.parts.push(part);
      this.size += part.size;
      this.kept.clear();
      this.matches.clear();
      return part;
    }

    // The part that a row is in; rows are numbered through, in the order of loading.
    partOf(row) {
      let low = 0, high = this.parts.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.parts[middle].first <= row) low = middle;
        else high = middle - 1;
      }
      return this.parts[low];
    }

    text(name, row) {
      const part = this.partOf(row);
      return part.text(name, row - part.first);
    }

    // A number for every row, -1 where there is none: "sigmas" or "scores".
    numbers(name) {
      if (!this.kept.has(name)) {
        const all = new Float32Array(this.size);
        for (const { data, first, size } of this.parts) {
          const values = data[name], shift = values.length === size ? 0 : 1;
          for (let at = 0; at < size; at += 1) all[first + at] = values[at >> shift] ?? -1;
        }
        this.kept.set(name, all);
      }
      return this.kept.get(name);
    }

    // How many rows peak mostly on a token, by its folded text.
    peakingOn(token) {
      let n = 0;
      for (const part of this.parts) n += part.peaking.get(token) ?? 0;
      return n;
    }

    // The row with this address, <run>/<direction>/<pole>; -1 for none, or one that is not loaded.
    at(address) {
      const [run, name, pole] = address.split("/");
      for (const part of this.parts) {
        const item = part.run === run ? part.lines("names").indexOf(name) : -1;
        if (item >= 0) return part.first + 2 * item + (pole === "min" ? 1 : 0);
      }
      return -1;
    }

    // Reads one more part's words; false when all are read. For the browser's idle time.
    readOne() {
      const part = this.parts.find((one) => !one.places);
      part?.read(this.vocabulary);
      void part?.peaking;
      return Boolean(part);
    }

    // Adds to `best` what rows get for holding these words of the vocabulary.
    #spread(best, { numbers, places }, factors) {
      for (const part of this.parts) {
        const { starts, places: held, first } = part;
        if (!held) continue;
        for (let at = 0; at < numbers.length; at += 1) {
          const word = numbers[at];
          if (word + 1 >= starts.length) continue;
          const factor = PLACES[places[at]] * (factors ? factors[at] : 1);
          const values = FIELDS.map(([, weight]) => factor * weight);
          for (let place = starts[word]; place < starts[word + 1]; place += 1) {
            const row = first + (held[place] >> 3), value = values[held[place] & 7];
            if (best[row] < value) best[row] = value;
          }
        }
      }
    }

    // What each row gets for a word of a query, as it is written: 0 where it is not found.
    #exact(word) {
      const best = new Float32Array(this.size), runs = runsOf(word);
      for (const part of this.parts) if (!part.places) part.scan(best, word);
      if (runs.length === 1) {
        this.#spread(best, this.vocabulary.holding(word));
        return best;
      }
      // Of several runs, as in l07.up: where they stand together, in rows that hold all of them.
      const all = runs.map((run) => {
        const own = new Float32Array(this.size);
        this.#spread(own, this.vocabulary.holding(run));
        return own;
      });
      for (const part of this.parts) {
        for (let row = part.first; part.places && row < part.first + part.size; row += 1) {
          if (!all.every((own) => own[row] > 0)) continue;
          for (const [name, weight] of FIELDS) {
            const text = part.foldedText(name, row - part.first);
            if (best[row] < weight && text.includes(word)) best[row] = Math.max(best[row], weight * placeOf(text, word));
          }
        }
      }
      return best;
    }

    // The same for the known words near a mistyped one.
    #near(word) {
      const best = new Float32Array(this.size);
      if ([...word].length < SHORTEST || runsOf(word).length > 1) return { best, words: [] };
      while (this.readOne());
      const found = this.vocabulary.near(word, word.length >= LONG ? 2 : 1);
      const near = { numbers: [], places: [] }, factors = [];
      for (const { text, number, distance, begins } of found) {
        // Words that begin with the one that was meant count as they would have if it were typed.
        const held = begins ? { numbers: [number], places: [1] } : this.vocabulary.holding(text);
        held.numbers.forEach((word, at) => {
          near.numbers.push(word);
          near.places.push(held.places[at]);
          factors.push(WIDENED[distance]);
        });
      }
      this.#spread(best, near, factors);
      return { best, words: found.map((one) => one.text) };
    }

    // All rows of the models with a word in their names that begins so; null where none has.
    #named(word) {
      const best = new Float32Array(this.size), models = new Set();
      let n = 0;
      if (!/[\p{L}\p{N}]/u.test(word)) return null;
      for (const part of this.parts) {
        if (placeOf(part.names, word) < PLACES[1]) continue;
        best.fill(OF_MODEL, part.first, part.first + part.size);
        models.add(part.data.title);
        n += part.size;
      }
      return n ? { best, n, words: [], widened: false, named: [{ word, models: [...models] }] } : null;
    }

    #matched(word, widened) {
      const key = `${widened ? "near" : "exact"} ${word}`;
      let found = this.matches.get(key);
      if (!found) {
        const { best, words } = widened ? this.#near(word) : { best: this.#exact(word), words: [word] };
        let n = 0;
        for (let row = 0; row < best.length; row += 1) n += best[row] > 0;
        found = { best, words, n, widened };
      }
      this.matches.delete(key);
      this.matches.set(key, found);
      if (this.matches.size > KEPT) this.matches.delete(this.matches.keys().next().value);
      return found;
    }

    #sum(matches) {
      const scores = new Float32Array(this.size).fill(1);
      for (const { best, n } of matches) {
        const rarity = Math.log(1 + this.size / Math.max(1, n));
        for (let row = 0; row < scores.length; row += 1) {
          scores[row] = scores[row] > 0 && best[row] > 0 ? scores[row] + rarity * best[row] : 0;
        }
      }
      let n = 0;
      const mean = this.#meanLength();
      for (const { first, size, lengths } of this.parts) {
        for (let at = 0; at < size; at += 1) {
          if (!scores[first + at]) continue;
          scores[first + at] /= 1 - LENGTH + LENGTH * lengths[at] / mean;
          n += 1;
        }
      }
      return { scores, n };
    }

    #meanLength() {
      let sum = 0;
      for (const { data } of this.parts) sum += data.labels.length;
      return Math.max(1, sum / Math.max(1, this.size));
    }

    // The score of every row, 0 for those not found (null without words: all are); the words that
    // stood for the query's, those among them that nobody typed, and the models that words name.
    find(query) {
      const asked = wordsOf(query);
      if (!asked.length) return { scores: null, words: [], instead: [], named: [] };
      let matches = asked.map((word) => {
        const match = this.#matched(word, false);
        return match.n ? match : this.#named(word) ?? this.#matched(word, true);
      });
      let { scores, n } = this.#sum(ofAnyModel(matches));
      for (const wider of [this.#orNamed, this.#wider]) {
        if (n || matches.some((match) => !match.n)) break;
        const others = matches.map((match, at) => wider.call(this, match, asked[at]));
        ({ scores, n } = this.#sum(others));
        if (n) matches = others;
      }
      const instead = matches.flatMap((match, at) => match.widened ? match.words.filter((word) => word !== asked[at]) : []);
      return { scores, words: matches.flatMap((match) => match.words), instead, named: matches.flatMap((match) => match.named ?? []) };
    }

    // A match and the rows of the models that the word names, too.
    #orNamed(match, word) {
      const named = match.named || match.widened ? null : this.#named(word);
      return named ? joined(match, named, { words: match.words, named: named.named }) : match;
    }

    // A match and the words near it: for words that are known but were meant to be others.
    #wider(match, word) {
      if (match.widened) return match;
      const near = this.#matched(word, true);
      return near.n ? joined(match, near, { words: [word, ...near.words.filter((other) => other !== word)], widened: true }) : match;
    }

    // The row of a run by its number there (two a direction, max first); -1 if it is not loaded.
    rowOf(run, number) {
      for (const part of this.parts) {
        const at = number - 2 * part.data.first;
        if (part.run === run && at >= 0 && at < part.size) return part.first + at;
      }
      return -1;
    }

    // The rows whose labels are like that of a row, nearest first, as far as they are loaded.
    alike(row) {
      const { run } = this.partOf(row);
      return this.text("alike", row).split(" ").filter(Boolean)
        .map((number) => this.rowOf(run, Number(number))).filter((other) => other >= 0);
    }

    // The first `most` rows that pass, and how many pass: by the largest number of the first of
    // these lists, then by that of the next, then in the order of loading.
    top(most, passes, ...lists) {
      const before = (a, b) => {
        for (let at = 0; at < lists.length; at += 1) {
          const difference = lists[at][b] - lists[at][a];
          if (difference) return difference < 0;
        }
        return a < b;
      };
      // A heap with the last of the best on top: most rows are compared with that alone.
      const heap = [];
      const sink = (at) => {
        for (let child = 2 * at + 1; child < heap.length; child = 2 * at + 1) {
          if (child + 1 < heap.length && before(heap[child], heap[child + 1])) child += 1;
          if (!before(heap[at], heap[child])) return;
          [heap[at], heap[child]] = [heap[child], heap[at]];
          at = child;
        }
      };
      let n = 0;
      for (let row = 0; row < this.size; row += 1) {
        if (!passes(row)) continue;
        n += 1;
        if (heap.length < most) {
          heap.push(row);
          if (heap.length === most) for (let at = most >> 1; at >= 0; at -= 1) sink(at);
        } else if (before(row, heap[0])) {
          heap[0] = row;
          sink(0);
        }
      }
      return { rows: heap.sort((a, b) => before(a, b) ? -1 : 1), n };
    }
  }

  Object.assign(globalThis.WA, { Index });
}
