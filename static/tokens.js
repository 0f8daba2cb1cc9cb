// The token page: which poles peak on the tokens that begin like what is typed, and which promote or
// suppress them. Rows are those of search, so that their labels need not be stored again.
"use strict";
{
  const { count, made } = WA;
  const TOKENS = 12, POLES = 6;
  const DELAY = 80;
  const box = document.getElementById("q");
  const status = document.getElementById("status");
  const found = document.getElementById("found");
  const more = document.getElementById("more");
  const commonest = document.getElementById("commonest");
  const index = new WA.Index();
  // What scripts brought: a run, the number of its first row there, and its tokens by line.
  const parts = [];
  const state = { shown: TOKENS, whole: new Set() };

  class Part {
    constructor(run, data) {
      this.run = run;
      this.data = data;
      this.tokens = data.tokens === "" && data.peaks[0].length === 1 ? [] : data.tokens.split("\n");
      this.folded = null;
    }

    // Calls `hit(token number, its folded text)` for the tokens that begin with `start`.
    each(start, hit) {
      this.folded ??= this.tokens.map(WA.fold);
      this.folded.forEach((token, at) => { if (token.startsWith(start)) hit(at, token); });
    }

    // The entries of a token in one of the tables, each with its row and its numbers.
    entries(table, token, hit) {
      const [starts, rows, ...columns] = this.data[table];
      for (let at = starts[token]; at < starts[token + 1]; at += 1) {
        hit(2 * this.data.first + rows[at], ...columns.map((values) => values[at]));
      }
    }
  }

  // The tokens that begin so, each with its poles: the one that is typed first, then the commonest.
  const look = (start) => {
    const tokens = new Map();
    for (const part of parts) {
      part.each(start, (at, folded) => {
        if (!tokens.has(folded)) tokens.set(folded, { text: part.tokens[at], folded, peaks: [], lens: [] });
        const token = tokens.get(folded);
        part.entries("peaks", at, (number, n, value) => token.peaks.push({ run: part.run, number, n, value }));
        part.entries("lens", at, (number, logit) => token.lens.push({ run: part.run, number, logit }));
      });
    }
    return [...tokens.values()].sort((a, b) => (b.folded === start) - (a.folded === start)
      || b.peaks.length - a.peaks.length || b.lens.length - a.lens.length || (a.folded < b.folded ? -1 : 1));
  };

  // Entries with the row that each is of; those whose row could not be loaded are left out.
  const withRows = (entries) => entries.map((entry) => ({ ...entry, at: index.rowOf(entry.run, entry.number) }))
    .filter((entry) => entry.at >= 0).map((entry) => ({ ...entry, row: WA.read(index, entry.at) }));

  const weights = document.getElementById("found").dataset.weights;
  const ofControl = (row) => row.kind !== weights;
  // What the fine-tune wrote comes before what it did not.
  const byOrigin = (a, b) => ofControl(a.row) - ofControl(b.row);

  const signed = (value, digits) => `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(digits)}`;
  const item = ({ row }, ...facts) => made("li", {}, made("a", { href: `${row.page}#${row.pole}` },
    WA.said(row, []), made("span", { className: "meta" }, WA.sign(row.pole), made("code", {}, row.id),
      made("bdi", {}, row.model), ...[...facts, ...(ofControl(row) ? [`control: ${row.kind}`] : [])].map((fact) => made("span", {}, fact)))));

  // A list of poles under its heading, cut until the reader asks for all of it.
  const listed = (key, heading, entries, facts) => {
    if (!entries.length) return "";
    const shown = state.whole.has(key) ? entries : entries.slice(0, POLES);
    const list = made("ol", { className: "results" }, ...shown.map((entry) => item(entry, ...facts(entry))));
    const block = made("div", {}, made("h3", {}, heading), list);
    if (shown.length < entries.length) {
      const button = made("button", { type: "button", className: "like" }, `All ${count(entries.length)}`);
      button.addEventListener("click", () => {
        state.whole.add(key);
        draw();
      });
      block.append(button);
    }
    return block;
  };

  const blockOf = (token) => {
    const peaks = withRows(token.peaks).map((entry) => ({ ...entry, share: entry.n / entry.row.examples }))
      .sort((a, b) => byOrigin(a, b) || b.share - a.share || Math.abs(b.value) - Math.abs(a.value));
    const lens = withRows(token.lens).sort((a, b) => byOrigin(a, b) || Math.abs(b.logit) - Math.abs(a.logit));
    const name = made("code", { className: "token" }, token.text);
    const section = made("section", {}, made("h2", {}, name));
    const controls = peaks.filter((entry) => ofControl(entry.row)).length;
    const said = `${count(peaks.length)} ${peaks.length === 1 ? "pole peaks" : "poles peak"} on it`
      + (controls ? `, ${controls === peaks.length ? "all" : count(controls)} of controls` : "");
    section.append(
      listed(`peaks ${token.folded}`, said, peaks,
        (entry) => [`${entry.n} of ${entry.row.examples} examples`, `up to ${signed(entry.value / 1000, 3)}`]),
      listed(`lens ${token.folded}`, "By the logit lens", lens,
        (entry) => [`${entry.row.pole === "max" ? "promotes" : "suppresses"} it, logit ${signed(entry.logit / 100, 2)}`]),
    );
    return section;
  };

  const draw = () => {
    const start = WA.fold(box.value.trim());
    commonest.hidden = start !== "";
    const tokens = start ? look(start) : [];
    found.replaceChildren(...tokens.slice(0, state.shown).map(blockOf));
    more.hidden = tokens.length <= state.shown;
    const n = tokens.length;
    const parts = start ? [n ? `${count(n)} ${n === 1 ? "token begins" : "tokens begin"} with \u201c${box.value.trim()}\u201d`
      : `no pole peaks on a token that begins with \u201c${box.value.trim()}\u201d, promotes or suppresses one`] : [];
    status.textContent = [...parts, ...loading.said()].join(" \u00b7 ");
  };

  const search = () => {
    state.shown = TOKENS;
    state.whole.clear();
    draw();
    const query = box.value.trim();
    history.replaceState(null, "", query ? `?q=${encodeURIComponent(query)}` : location.pathname);
  };
  let waiting = 0;
  box.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, DELAY);
  });
  document.getElementById("form").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    search();
  });
  more.addEventListener("click", () => {
    const before = state.shown;
    state.shown += TOKENS;
    draw();
    found.children[before]?.querySelector("a")?.focus();
  });

  box.value = new URLSearchParams(location.search).get("q") ?? "";
  box.focus({ preventScroll: true });
  const inputs = [...document.querySelectorAll("#models input")];
  const models = WA.modelsOf(inputs).map((model, at) => ({ ...model, scripts: [...inputs[at].dataset.tokens.split(" "), ...model.scripts] }));
  const loading = new WA.Loading(models, () => {
    if (loading.done || box.value.trim()) draw();
  });
  WA.add = (run, data) => {
    loading.arrived();
    index.add(run, data);
  };
  WA.tokens = (run, data) => {
    loading.arrived();
    parts.push(new Part(run, data));
  };
  loading.start();
}
