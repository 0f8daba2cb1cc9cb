// How a found pole is shown: its label with the words that were found, and the facts around it.
"use strict";
globalThis.WA ??= {};
{
  const { fold, made } = WA;
  // Where a word stands when it is not in the label: columns and what they are called.
  const ELSEWHERE = [["keywords", "its keywords"], ["peaks", "the token it peaks on"], ["tokens", "the tokens it"]];

  // A text with the words that were found in it, by where their folded forms begin and end.
  const marked = (text, words) => {
    const letters = [...text], owner = [], lit = new Set();
    let folded = "";
    letters.forEach((letter, at) => {
      const form = fold(letter);
      for (let i = 0; i < form.length; i += 1) owner.push(at);
      folded += form;
    });
    for (const word of words) {
      for (let at = folded.indexOf(word); at >= 0; at = folded.indexOf(word, at + word.length)) {
        for (let i = at; i < at + word.length; i += 1) lit.add(owner[i]);
      }
    }
    const parts = document.createDocumentFragment();
    let run = "", bright = false;
    const flush = () => {
      if (run) parts.append(bright ? made("mark", {}, run) : run);
      run = "";
    };
    letters.forEach((letter, at) => {
      if (lit.has(at) !== bright) {
        flush();
        bright = !bright;
      }
      run += letter;
    });
    flush();
    return parts;
  };

  // One row of an index as a page shows it.
  const read = (index, row) => {
    const part = index.partOf(row), at = row - part.first, item = at >> 1, { data } = part;
    return {
      part, at, run: part.run, model: data.title, pole: at & 1 ? "min" : "max",
      id: part.text("ids", at), name: part.text("names", at), page: WA.addressOf(part.run, part.text("names", at), data), label: part.text("labels", at),
      state: data.states[data.states_of[at]], doubt: data.doubts[data.doubts_of[at]],
      score: data.scores[at], interval: part.text("intervals", at), sigma: data.sigmas[item],
      kind: data.kinds[data.kinds_of[item]], alike: part.text("alike", at).split(" ").filter(Boolean).length,
      peak: part.text("peaks", at), peaking: data.peaking[at], examples: data.examples[at],
      // What names a row in an address.
      get address() { return `${this.run}/${this.name}/${this.pole}`; },
    };
  };

  const sign = (pole) => made("span", { className: `sign ${pole}` }, pole === "max" ? "\u25b2 max" : "\u25bc min");
  const said = (row, words) => made("bdi", { className: row.label ? row.doubt ? "said doubtful" : "said" : "said without" },
    row.label ? marked(row.label, words) : row.state);
  const scoreOf = (row) => {
    const interval = row.interval && ` (${row.interval.replace(" ", "\u2013")})`;
    return `F1 ${(row.score / 100).toFixed(2)}${interval}${row.doubt ? `, ${row.doubt}` : ""}`;
  };

  // The words that are not in the label or the id, and where they are.
  const elsewhere = (row, words) => {
    const shown = fold(`${row.label}\n${row.id}`);
    const hidden = words.filter((word) => !shown.includes(word));
    for (const [name, place] of ELSEWHERE) {
      const found = hidden.filter((word) => row.part.foldedText(name, row.at).includes(word));
      const verb = name !== "tokens" ? "" : row.pole === "max" ? " promotes" : " suppresses";
      if (found.length) return made("span", {}, `${found.slice(0, 3).join(", ")} in ${place}${verb}`);
    }
    return "";
  };

  // A row as an entry of the list; `weights` is the kind that is no control.
  const entry = (row, words, weights) => {
    const meta = made("span", { className: "meta" }, sign(row.pole),
      made("code", {}, marked(row.id, words)), made("bdi", {}, row.model), elsewhere(row, words));
    if (row.score !== null) meta.append(made("span", {}, scoreOf(row)));
    if (row.kind !== weights) meta.append(`control: ${row.kind}`);
    if (2 * row.peaking >= row.examples && row.peaking) {
      meta.append(made("span", {}, "peaks on ", made("code", {}, marked(row.peak, words)), ` in ${row.peaking} of ${row.examples}`));
    }
    if (row.sigma !== null) meta.append(made("span", {}, `\u03c3 ${row.sigma}`));
    return made("li", {}, made("a", { href: `${row.page}#${row.pole}` }, said(row, words), meta));
  };

  Object.assign(globalThis.WA, { entry, marked, read, said, sign });
}
