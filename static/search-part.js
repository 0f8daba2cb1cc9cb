// What does one script of a model bring? Rows of columns, and, once they are read, the places of
// every word in them. Nothing here touches the page.
"use strict";
globalThis.WA ??= {};
{
  const { fold, eachWord, isEdge } = WA;
  // Columns that words are looked for in, and what they weigh.
  const FIELDS = [["labels", 4], ["ids", 4], ["keywords", 2], ["peaks", 1.5], ["tokens", 1]];
  // What a place weighs of that: a whole word, the beginning of one, its inside.
  const PLACES = [1, 0.75, 0.4];

  // The best place of a word in a text that holds it, as a share of the field's weight.
  const placeOf = (text, word) => {
    let best = 0;
    for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
      const end = at + word.length;
      const place = !isEdge(text, at) ? PLACES[2] : isEdge(text, end) ? PLACES[0] : PLACES[1];
      best = Math.max(best, place);
    }
    return best;
  };

  const linesOf = (text) => (text === "" ? [] : text.split("\n"));

  // The rows of one script: columns as they came, and the places of each word in them.
  class Part {
    constructor(run, data, first) {
      this.run = run;
      this.data = data;
      this.first = first;
      this.size = 2 * data.layers.length;
      this.split = new Map();
      this.folded = new Map();
      this.places = null;
      // What its model is called, to be looked in for words.
      this.names = fold(`${data.title}\n${run}`);
    }

    // The lines of a column, as they came.
    lines(name) {
      if (!this.split.has(name)) this.split.set(name, linesOf(this.data[name]));
      return this.split.get(name);
    }

    // That of a row, by its place in the part; of two rows a direction, its one.
    text(name, at) {
      const lines = this.lines(name);
      return lines[lines.length === this.size ? at : at >> 1] ?? "";
    }

    // The same as words are looked for.
    foldedText(name, at) {
      return fold(this.text(name, at));
    }

    #folded(name) {
      if (!this.folded.has(name)) this.folded.set(name, linesOf(fold(this.data[name])));
      return this.folded.get(name);
    }

    // How many rows peak mostly on each token, by its folded text.
    get peaking() {
      if (!this.counted) {
        this.counted = new Map();
        for (const token of this.lines("peaks")) {
          const key = fold(token);
          this.counted.set(key, (this.counted.get(key) ?? 0) + 1);
        }
      }
      return this.counted;
    }

    // How long the labels are, in characters.
    get lengths() {
      this.held ??= Uint16Array.from(this.lines("labels"), (line) => line.length);
      return this.held;
    }

    // Adds to `best` what rows get for holding `word` as it stands: reads all texts. Slower than the
    // places of words by far, but there at once.
    scan(best, word) {
      for (const [name, weight] of FIELDS) {
        const lines = this.#folded(name), each = lines.length === this.size ? 1 : 2;
        for (let line = 0; line < lines.length; line += 1) {
          if (!lines[line].includes(word)) continue;
          const value = weight * placeOf(lines[line], word);
          for (let at = each * line; at < each * (line + 1); at += 1) {
            if (best[this.first + at] < value) best[this.first + at] = value;
          }
        }
      }
    }

    // Lists the places of every word: row and field, one list after the other in word order.
    read(vocabulary) {
      if (this.places) return;
      let words = new Int32Array(16 * this.size + 16), places = new Int32Array(words.length), n = 0;
      const put = (word, place) => {
        if (n === words.length) [words, places] = [words, places].map((old) => {
          const larger = new Int32Array(2 * old.length);
          larger.set(old);
          return larger;
        });
        words[n] = word;
        places[n] = place;
        n += 1;
      };
      FIELDS.forEach(([name], field) => {
        const text = fold(this.data[name]), both = name === "ids";
        eachWord(text, (start, end, hash, line) => {
          const word = vocabulary.number(text, start, end, hash);
          if (both) {
            put(word, (2 * line) << 3 | field);
            put(word, (2 * line + 1) << 3 | field);
          } else {
            put(word, line << 3 | field);
          }
        });
      });
      this.starts = new Int32Array(vocabulary.size + 1);
      for (let at = 0; at < n; at += 1) this.starts[words[at] + 1] += 1;
      for (let word = 0; word < vocabulary.size; word += 1) this.starts[word + 1] += this.starts[word];
      const next = this.starts.slice(), sorted = new Int32Array(n);
      for (let at = 0; at < n; at += 1) sorted[next[words[at]]++] = places[at];
      this.places = sorted;
      // Folded texts were needed for this alone, and are as large as what was loaded.
      this.folded.clear();
    }
  }

  Object.assign(globalThis.WA, { FIELDS, PLACES, Part, placeOf });
}
