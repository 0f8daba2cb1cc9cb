// A direction's page: all examples with every token's activation, and what to look at in them.
//
// The page itself holds a few examples; its file holds all of them, and the script puts them in.
"use strict";
{
  const ROLES = ["user", "assistant", "system", "tool", "text", "template"];
  const POLES = ["max", "min"];
  const STEPS = 7, NEUTRAL = 0.15;
  const find = (selector, within = document) => within.querySelector(selector);
  const make = (name, className, ...content) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    element.append(...content);
    return element;
  };
  const signed = (value, digits = 3) => {
    const text = Math.abs(value).toFixed(digits);
    return Number(text) === 0 ? text : `${value < 0 ? "\u2212" : "+"}${text}`;
  };
  const whole = (n) => n.toLocaleString("en").replaceAll(",", "\u00a0");
  const plural = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;

  const { boxed } = WA;

  // From a direction's centre to either end, seven steps of colour; see spans.Scale.
  class Scale {
    constructor(low, centre, high) {
      Object.assign(this, { low, centre, high });
    }

    step(value) {
      const offset = value - this.centre;
      const size = offset >= 0 ? this.high - this.centre : this.centre - this.low;
      if (size <= 1e-9) return 0;
      const part = Math.ceil((Math.abs(offset) / size - NEUTRAL) / (1 - NEUTRAL) * STEPS - 1e-6);
      return Math.sign(offset) * Math.min(STEPS, Math.max(0, part));
    }

    valueAt(step) {
      if (!step) return this.centre;
      const side = (step > 0 ? this.high : this.low) - this.centre;
      return this.centre + side * (NEUTRAL + (Math.abs(step) - 0.5) * (1 - NEUTRAL) / STEPS);
    }
  }

  const state = { show: "tuned", scales: {}, held: new WeakMap(), drawn: [], page: null };
  const valueOf = (item, token, show = state.show) => {
    const tuned = item.tuned[token], base = item.base?.[token];
    if (show === "tuned" || base === undefined) return tuned;
    return show === "base" ? base : tuned - base;
  };

  // The text of a window from one token to another, every token with its colour.
  const draw = (item) => {
    const { text, peak, paragraph, roles } = item;
    const first = item.open ? 0 : peak - item.context;
    const last = item.open ? text.tokens : peak + item.context;
    const scale = state.scales[state.show];
    const parts = [];
    let place = parts, stretch = null;
    for (const piece of text.pieces) {
      const end = piece.first + Math.max(1, piece.tokens) - 1;
      if (end < first || piece.first > last) continue;
      if (roles && roles[piece.first] !== stretch && piece.tokens) {
        stretch = roles[piece.first];
        const span = make("span");
        span.dataset.r = ROLES[stretch];
        parts.push(span);
        place = span;
      }
      const holds = peak >= piece.first && peak <= end;
      let strongest = holds ? peak : piece.first;
      if (!holds) {
        for (let token = piece.first; token <= end; token += 1) {
          if (Math.abs(scale.step(valueOf(item, token))) > Math.abs(scale.step(valueOf(item, strongest)))) strongest = token;
        }
      }
      const token = make("i", "", ...boxed(piece.text));
      if (/^\s*\n\s*$/u.test(piece.text)) token.prepend(make("b", "nl"));
      if (piece.tokens) {
        const step = scale.step(valueOf(item, strongest));
        if (step) token.classList.add(`${step > 0 ? "p" : "n"}${Math.abs(step)}`);
        if (holds) token.classList.add("k");
        state.held.set(token, { item, piece });
      }
      if (place === parts) parts.push(token);
      else place.append(token);
    }
    paragraph.classList.toggle("cl", item.start + Math.max(0, first) > 0);
    paragraph.replaceChildren(...parts);
  };

  const textOf = (label) => {
    const text = make("p", "t");
    text.dir = "auto";
    text.tabIndex = 0;
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", label);
    return text;
  };

  const spread = (runs, tokens) => {
    if (!runs) return null;
    const roles = new Uint8Array(tokens);
    let at = 0;
    for (const [role, count] of runs) roles.fill(role, at, at += count);
    return roles;
  };

  // The activations of each text in turn, as views into the page's two arrays.
  const cutter = (page) => {
    let at = 0;
    return (tokens) => {
      const part = { tuned: page.tuned.subarray(at, at + tokens), base: page.base?.subarray(at, at + tokens) };
      at += tokens;
      return part;
    };
  };

  // A text of a source that readers are warned of stands behind a click, as in the page itself.
  const veil = (header, source, ...content) => (header.veiled?.includes(source)
    ? [make("details", "veil", make("summary", "", "Show text from ", make("bdi", "", ...boxed(header.sources[source]))), ...content)]
    : content);

  // One example as the page writes it: head, text, and the rest of its window on demand.
  const article = (row, item, header) => {
    const source = header.sources[row[5]];
    const [pole, role, lists, value, distance, , doc, duplicates, repeats] = row;
    const anchor = `${POLES[pole]}-${ROLES[role]}-${doc}`;
    const element = document.getElementById(anchor) ?? make("article");
    element.id = anchor;
    element.className = `example${lists & 1 ? " any" : ""}${lists & 2 ? ` ${ROLES[role]}` : ""}`;
    element.dataset.role = ROLES[role];
    const link = make("a", "value", signed(value));
    link.href = `#${anchor}`;
    const from = make("bdi", "", ...boxed(source));
    const head = make("header", "", link, " ");
    if (distance !== null) head.append(make("span", "", `${signed(distance, 1)} sd`), " ");
    head.append(make("span", "role", ROLES[role]), " ", make("span", "source", from, ` #${doc}`));
    if (duplicates) head.append(" ", make("span", "dup", `+${plural(duplicates, "near-duplicate")}`));
    if (repeats) head.append(" ", make("span", "dup", `+${whole(repeats)} alike up to the peak`));
    item.paragraph = textOf("Text of the example; arrow keys read its values");
    const content = [item.paragraph];
    if (item.peak > item.context || item.peak + item.context < item.text.tokens - 1) {
      const more = make("button", "more", "More context");
      more.type = "button";
      more.setAttribute("aria-expanded", "false");
      more.addEventListener("click", () => {
        item.open = !item.open;
        more.setAttribute("aria-expanded", String(item.open));
        more.textContent = item.open
          ? `Less context (tokens ${whole(item.start + 1)} to ${whole(item.start + item.text.tokens)} of the document)`
          : "More context";
        draw(item);
      });
      content.push(more);
    }
    element.replaceChildren(head, ...veil(header, row[5], ...content));
    return element;
  };

  const fillExamples = (page, cut) => {
    const { header, texts } = page;
    const lists = POLES.map((pole) => find(`#${pole} .examples`));
    const found = [[], []];
    header.examples.forEach((row, index) => {
      const item = {
        text: texts[index], ...cut(texts[index].tokens), start: row[9], peak: row[10],
        roles: spread(row[11], texts[index].tokens), role: row[1], context: header.context, open: false,
      };
      found[row[0]].push(article(row, item, header));
      state.drawn.push(item);
      draw(item);
    });
    lists.forEach((list, pole) => {
      if (found[pole].length) list?.replaceChildren(...found[pole]);
    });
  };

  // Random documents lie in a file that all directions of the model share.
  let texts = null;
  const randomTexts = () => {
    texts ??= new Promise((done, failed) => {
      WA.texts = (size, letters) => done(WA.unpack(size, letters));
      WA.load("texts.js").catch(failed);
    });
    return texts;
  };

  const onOpen = (details, fill) => details?.addEventListener("toggle", async () => {
    if (details.dataset.filled) return;
    details.dataset.filled = "1";
    try {
      details.append(...await fill());
    } catch (error) {
      details.append(make("p", "note warn", `Not to be shown: ${error.message}`));
    }
  });

  const betweenPart = (page, cut) => {
    const own = page.header.between.map((row) => ({ row, cut }));
    return async () => {
      const random = await randomTexts();
      const sides = POLES.map((pole) => make("section", `pole ${pole}`,
        make("header", "", make("p", "which", make("span", `sign ${pole}`, `${pole === "max" ? "\u25b2" : "\u25bc"} ${pole}`)))));
      for (const { row } of own) {
        const [pole, reach, value, place, duplicates, peak, role, first, tokens, runs] = row;
        const [source, doc, start] = random.header.windows[place];
        const pieces = random.texts[place].pieces
          .filter((piece) => piece.first >= first && piece.first < first + tokens)
          .map((piece) => ({ ...piece, first: piece.first - first }));
        const item = {
          text: { pieces, tokens }, ...cut(tokens), start: start + first, peak: peak - first,
          roles: spread(runs, tokens), role, context: page.header.context, open: true,
        };
        item.paragraph = textOf("Text of a random document; arrow keys read its values");
        const head = make("header", "", make("span", "value", signed(value)), " ",
          make("span", "", `beyond ${Math.round(100 * reach)} % of random documents`), " ",
          make("span", "role", ROLES[role]), " ",
          make("span", "source", make("bdi", "", ...boxed(random.header.sources[source])), ` #${doc}`));
        if (duplicates) head.append(" ", make("span", "dup", `+${plural(duplicates, "near-duplicate")}`));
        const element = make("article", "random", head, ...veil(random.header, source, item.paragraph));
        element.dataset.role = ROLES[role];
        sides[pole].append(element);
        state.drawn.push(item);
        draw(item);
      }
      return [make("div", "pair", ...sides)];
    };
  };

  // About so many characters of a text on one line, around its first marked token or its peak.
  const QUOTED = 84;
  const quote = (text, tokens, marked, seen) => {
    const [from, length] = seen || [0, Infinity];
    const pieces = text.pieces.filter((piece) => piece.first >= from && piece.first < from + length);
    const centre = Math.max(0, pieces.findIndex((piece) => piece.first + piece.tokens > tokens[0]));
    let low = centre, high = centre, size = pieces[centre]?.text.length ?? 0;
    for (let before = QUOTED / 3; low > 0 && before > 0;) before -= pieces[low -= 1].text.length;
    while (high + 1 < pieces.length && size < 2 * QUOTED / 3) size += pieces[high += 1].text.length;
    const lit = new Set(marked ? tokens : []);
    const line = make("span", "", low ? "\u2026 " : "");
    for (const piece of pieces.slice(low, high + 1)) {
      const own = boxed(piece.text.replaceAll("\n", " \u21b5 "));
      const bright = Array.from({ length: piece.tokens }, (_, at) => piece.first + at).some((at) => lit.has(at));
      line.append(...(bright ? [make("mark", "", ...own)] : own));
    }
    if (high + 1 < pieces.length) line.append(" \u2026");
    return line;
  };

  const SAID = ["no", "yes", "no \u2717", "yes \u2717"];
  const judgedPart = (page, judged, names) => async () => {
    const { header } = page;
    const random = judged.parts.some(([, rows]) => rows.some(([place]) => place < 0)) ? await randomTexts() : null;
    const textCell = (place, marked, seen) => {
      if (Array.isArray(place)) return make("td", "", place[1] || `document ${place[0]}`);
      if (place < 0) {
        const line = quote(random.texts[~place], marked || [seen ? seen[0] : 0], marked, seen);
        return make("td", "", ...veil(random.header, random.header.windows[~place][0], line));
      }
      const row = header.examples[place];
      const link = make("a", "", header.veiled?.includes(row[5]) ? `document ${row[6]}` : quote(page.texts[place], marked || [row[10]], marked, seen));
      link.href = `#${POLES[row[0]]}-${ROLES[row[1]]}-${row[6]}`;
      return make("td", "", link);
    };
    const verdictCell = (verdict) => make("td", "", verdict === null ? "\u2013"
      : Array.isArray(verdict) ? `${verdict[0]}${verdict[1] ? " \u2717" : ""}` : SAID[verdict]);
    const scope = (cell, name) => { cell.scope = name; return cell; };
    const wide = judged.scorers.length + 1;
    const marks = judged.scorers.includes("fuzzing") ? " Fuzzing asks about the marked tokens." : "";
    const table = make("table", "list judged",
      make("caption", "", `Does the label fit? \u2717 marks a wrong verdict.${marks}`),
      make("thead", "", make("tr", "", ...["text", ...judged.scorers].map((name) => scope(make("th", "", name), "col")))));
    for (const [stratum, rows, rest] of judged.parts) {
      const name = names[stratum] ?? stratum;
      const head = scope(make("th", "", `${name[0].toUpperCase()}${name.slice(1)}: ${stratum === "pole" ? "yes" : "no"} is right`), "rowgroup");
      head.colSpan = wide;
      const body = make("tbody", "", make("tr", "", head));
      for (const [place, marked, seen, ...verdicts] of rows) {
        body.append(make("tr", "", textCell(place, marked, seen), ...verdicts.map(verdictCell)));
      }
      if (rest.length) {
        const cell = make("td", "rest", `and ${whole(rest.length)} more that every scorer asked rightly said no to: document${rest.length === 1 ? "" : "s"} ${rest.join(", ")}`);
        cell.colSpan = wide;
        body.append(make("tr", "", cell));
      }
      table.append(body);
    }
    return [table];
  };

  Object.assign(globalThis.WA, { Scale, ROLES, state, draw, signed, whole, valueOf });

  WA.page = async (size, letters) => WA.show(await WA.unpack(size, letters));

  WA.show = (page) => {
    state.page = page;
    WA.prepare?.(page);
    WA.charts(page.header);
    const cut = cutter(page);
    fillExamples(page, cut);
    onOpen(find("[data-between]"), betweenPart(page, cut));
    const names = page.header.strata;
    for (const [pole, judged] of Object.entries(page.header.judged)) {
      onOpen(find(`[data-judged=${pole}]`), judgedPart(page, judged, names));
    }
    document.documentElement.classList.add("filled");
    WA.filled?.(page);
    WA.copying?.();
  };
}
