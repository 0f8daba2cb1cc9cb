// Which rows answer a query, and in what order? Pure functions; nothing here touches the page.
//
// A row is found when every word of the query is a part of one of its texts. Its score adds up, for
// each word, the best of its places: the field's weight, more for a whole word than for a beginning
// and more for that than for the inside, times how rare the word is. A word of four letters or
// more that is found nowhere is widened to the known words within one edit (two from eight letters).
"use strict";
globalThis.WA ??= {};
{
  const FIELDS = [["labels", 4], ["ids", 4], ["keywords", 2], ["tokens", 1]];
  const WHOLE = 1, BEGINNING = 0.75, INSIDE = 0.4;
  // What folds away: combining marks and characters that cannot be seen.
  const UNSEEN = /[\p{M}\p{Cf}\u115f\u1160\u3164\uffa0]/gu;
  const WORD = /[\p{L}\p{N}_]+/gu;
  const IN_WORD = /[\p{L}\p{N}_]/u;

  const fold = (text) => text.normalize("NFKD").replace(UNSEEN, "").toLowerCase();

  // The words of a query. Quotes and stops at the ends of a word are typing, not meaning.
  const wordsOf = (query) => fold(query).split(/\s+/u)
    .map((word) => IN_WORD.test(word) ? word.replace(/^[\p{P}\p{S}]+|[\p{P}\p{S}]+$/gu, (edge) => edge.replace(/[^_]/gu, "")) : word)
    .filter(Boolean);

  // Rows of one model from its columns; two rows a direction, the max pole first.
  const rowsOf = (run, data) => {
    const split = (name) => data[name] === "" && !data.layers.length ? [] : data[name].split("\n");
    const [ids, names, writers, kinds] = ["ids", "names", "writers", "kinds"].map(split);
    const [labels, states, keywords, tokens] = ["labels", "states", "keywords", "tokens"].map(split);
    const [intervals, doubts, alike] = ["intervals", "doubts", "alike"].map(split);
    const rows = labels.map((label, index) => {
      const at = index >> 1;
      const row = {
        run, model: data.title, id: ids[at], name: names[at], layer: data.layers[at],
        writer: writers[at], kind: kinds[at], sigma: data.sigmas[at],
        pole: index % 2 ? "min" : "max", label, state: states[index],
        score: data.scores[index], interval: intervals[index], doubt: doubts[index],
        texts: [label, ids[at], keywords[index], tokens[index]].map(fold),
      };
      // One text to look a word up in before its places are weighed; a word never holds the break.
      row.all = row.texts.join("\n");
      return row;
    });
    // Those whose labels say much the same, nearest first.
    rows.forEach((row, index) => { row.alike = alike[index].split(" ").filter(Boolean).map((at) => rows[at]); });
    return rows;
  };

  const placeOf = (text, word) => {
    let best = 0;
    for (let at = text.indexOf(word); at >= 0 && best < WHOLE; at = text.indexOf(word, at + 1)) {
      const before = at > 0 && IN_WORD.test(text[at - 1]);
      const end = at + word.length;
      const after = end < text.length && IN_WORD.test(text[end]);
      best = Math.max(best, before ? INSIDE : after ? BEGINNING : WHOLE);
    }
    return best;
  };

  const weigh = (row, word) => {
    let best = 0;
    for (let field = 0; field < FIELDS.length; field += 1) {
      const place = placeOf(row.texts[field], word);
      if (place) best = Math.max(best, place * FIELDS[field][1]);
    }
    return best;
  };

  // Whether two words are within `limit` edits; a swap of neighbours is one edit.
  const within = (a, b, limit) => {
    if (Math.abs(a.length - b.length) > limit) return false;
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
      if (least > limit) return false;
      [older, old] = [old, now];
    }
    return old[b.length] <= limit;
  };

  // The words of all rows, made when a query first needs them.
  class Index {
    constructor() {
      this.rows = [];
      this.vocabulary = null;
    }

    add(run, data) {
      this.rows.push(...rowsOf(run, data));
      this.vocabulary = null;
    }

    words() {
      if (!this.vocabulary) {
        this.vocabulary = new Set();
        for (const row of this.rows) {
          for (const [word] of row.all.matchAll(WORD)) this.vocabulary.add(word);
        }
      }
      return this.vocabulary;
    }

    // What stands for a word: itself where it occurs, else the known words near it.
    variants(word) {
      if (this.rows.some((row) => row.all.includes(word))) return [word];
      if ([...word].length < 4) return [];
      const limit = word.length >= 8 ? 2 : 1;
      const near = [...this.words()].filter((known) => within(word, known, limit));
      // A mistyped beginning of a longer word counts, too.
      if (near.length) return near;
      return [...this.words()].filter((known) => known.length > word.length + limit
        && within(word, known.slice(0, word.length), limit));
    }

    // Found rows, best first, and the words that stood for the query's. `keep` is the filter.
    find(query, keep = () => true) {
      const asked = wordsOf(query);
      const wanted = asked.map((word) => this.variants(word));
      let found = this.rows.filter(keep);
      const order = (a, b) => b.score - a.score || (b.row.sigma ?? -1) - (a.row.sigma ?? -1);
      if (!asked.length) {
        return { hits: found.map((row) => ({ row, score: 0 })).sort(order), words: [], widened: false };
      }
      found = found.filter((row) => wanted.every((any) => any.some((word) => row.all.includes(word))));
      const rarity = wanted.map((any) => {
        const n = this.rows.reduce((sum, row) => sum + any.some((word) => row.all.includes(word)), 0);
        return Math.log(1 + this.rows.length / Math.max(1, n));
      });
      const hits = found.map((row) => ({
        row,
        score: wanted.reduce((sum, any, index) =>
          sum + rarity[index] * Math.max(...any.map((word) => weigh(row, word))), 0),
      }));
      const widened = wanted.some((any, index) => any.length > 0 && any[0] !== asked[index]);
      return { hits: hits.sort(order), words: wanted.flat(), widened };
    }
  }

  Object.assign(globalThis.WA, { Index, fold, wordsOf, within });
}
