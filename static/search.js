// The search page: loads the models' rows, keeps the address and the results in step with the form.
"use strict";
{
  const PAGE = 40;
  const DELAY = 110;
  const box = document.getElementById("q");
  const facets = document.getElementById("facets");
  const status = document.getElementById("status");
  const results = document.getElementById("results");
  const more = document.getElementById("more");
  const index = new WA.Index();
  const models = [...facets.querySelectorAll("input[name=model]")];
  const state = { loaded: 0, failed: [], shown: PAGE, hits: [], words: [], like: "" };
  const count = (n) => n.toLocaleString("en").replaceAll(",", "\u00a0");

  // Only the scripts that a build of this site writes; the browser enforces it.
  const shard = /^data\/search-[a-z0-9._-]+\.js$/;
  const checked = (address) => {
    if (!shard.test(address)) throw new TypeError(`not a search script: ${address}`);
    return address;
  };
  const policy = globalThis.trustedTypes?.createPolicy("wa", { createScriptURL: checked })
    ?? { createScriptURL: checked };

  WA.add = (run, data) => index.add(run, data);
  const load = (model) => {
    const script = document.createElement("script");
    script.src = policy.createScriptURL(model.dataset.script);
    script.addEventListener("load", () => { state.loaded += 1; search(); });
    script.addEventListener("error", () => {
      state.failed.push(model.closest("label").querySelector("bdi").textContent);
      search();
    });
    document.head.append(script);
  };

  const field = (name) => facets.elements[name];
  const chosen = (name) => new Set(
    [...facets.querySelectorAll(`input[name=${name}]:checked`)].map((input) => input.value));
  const bound = (name, other) => field(name).value === "" ? other : Number(field(name).value);

  // One test per facet, so that each facet can count what the others leave.
  const tests = () => {
    const sets = { model: chosen("model"), pole: chosen("pole"), writer: chosen("writer") };
    const low = bound("low", 0), high = bound("high", Infinity);
    const controls = field("controls").checked, labelled = field("labelled").checked;
    return {
      model: (row) => sets.model.has(row.run),
      pole: (row) => sets.pole.has(row.pole),
      writer: (row) => row.kind === "control" || sets.writer.has(row.writer),
      layer: (row) => row.layer >= low && row.layer <= high,
      controls: (row) => controls || row.kind !== "control",
      labelled: (row) => !labelled || row.label !== "",
    };
  };

  const counted = (hits, all) => {
    const others = (without) => Object.entries(all).filter(([name]) => name !== without).map(([, test]) => test);
    const fill = (input, n) => { input.closest("label").querySelector(".count").textContent = count(n); };
    for (const [name, of] of [["model", (row) => row.run], ["pole", (row) => row.pole], ["writer", (row) => row.kind === "control" ? "" : row.writer]]) {
      const rest = others(name);
      const sums = new Map();
      for (const { row } of hits) {
        if (rest.every((test) => test(row))) sums.set(of(row), (sums.get(of(row)) ?? 0) + 1);
      }
      for (const input of facets.querySelectorAll(`input[name=${name}]`)) fill(input, sums.get(input.value) ?? 0);
    }
    const n = (without, also) => hits.filter(({ row }) => also(row) && others(without).every((test) => test(row))).length;
    fill(field("controls"), n("controls", (row) => row.kind === "control"));
    fill(field("labelled"), n("labelled", (row) => row.label !== ""));
  };

  const fillWriters = () => {
    const known = new Set([...facets.querySelectorAll("input[name=writer]")].map((input) => input.value));
    for (const row of index.rows) {
      if (row.kind === "control" || known.has(row.writer)) continue;
      known.add(row.writer);
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "checkbox", name: "writer", value: row.writer, checked: true });
      const name = document.createElement("code");
      name.textContent = row.writer;
      const number = Object.assign(document.createElement("span"), { className: "count" });
      label.append(input, " ", name, " ", number);
      document.getElementById("writers").append(label);
      if (start.has("writer")) input.checked = start.getAll("writer").includes(row.writer);
    }
  };

  // What names a row in an address, and the row that the address asks others like.
  const nameOf = (row) => `${row.run}/${row.name}/${row.pole}`;
  const liked = () => state.like && index.rows.find((row) => nameOf(row) === state.like);

  const search = () => {
    fillWriters();
    const all = tests();
    const model = liked();
    const answer = model
      ? { hits: [model, ...model.alike].map((row) => ({ row, score: 0 })), words: [], widened: false }
      : index.find(box.value);
    counted(answer.hits, all);
    const keep = Object.values(all);
    state.hits = answer.hits.filter(({ row }) => keep.every((test) => test(row)));
    // The sort is stable: equal scores stay in the order of the match.
    if (field("sort").value === "score") state.hits.sort((a, b) => (b.row.score ?? -1) - (a.row.score ?? -1));
    state.words = answer.words;
    state.shown = PAGE;
    const n = state.hits.length;
    const poles = `${count(n)} ${n === 1 ? "pole" : "poles"}`;
    const order = field("sort").value === "score" ? ", by score" : model || box.value.trim() ? "" : ", by singular value";
    const parts = [model ? `${poles} with labels like \u201c${model.label}\u201d${order}`
      : `${poles}${box.value.trim() ? " found" : ""}${order}`];
    if (answer.widened) parts.push(`no exact match, so also: ${answer.words.slice(0, 6).join(", ")}`);
    const hidden = n ? 0 : answer.hits.filter(({ row }) =>
      keep.every((test) => test === all.labelled || test(row))).length;
    if (hidden) parts.push(`${count(hidden)} without a label: untick \u201clabelled only\u201d to see them`);
    if (state.loaded + state.failed.length < models.length) parts.push(`searching ${state.loaded} of ${models.length} models`);
    if (state.failed.length) parts.push(`could not load: ${state.failed.join(", ")}`);
    status.textContent = parts.join(" · ");
    draw();
    remember();
  };

  // The label with the words that were found, by where their folded forms begin and end.
  const marked = (text) => {
    const letters = [...text];
    const owner = [];
    let folded = "";
    letters.forEach((letter, at) => {
      const form = WA.fold(letter);
      for (let i = 0; i < form.length; i += 1) owner.push(at);
      folded += form;
    });
    const lit = new Set();
    for (const word of state.words) {
      for (let at = folded.indexOf(word); at >= 0; at = folded.indexOf(word, at + word.length)) {
        for (let i = at; i < at + word.length; i += 1) lit.add(owner[i]);
      }
    }
    const parts = document.createDocumentFragment();
    let run = "", bright = false;
    const flush = () => {
      if (!run) return;
      if (bright) parts.append(Object.assign(document.createElement("mark"), { textContent: run }));
      else parts.append(run);
      run = "";
    };
    letters.forEach((letter, at) => {
      if (lit.has(at) !== bright) { flush(); bright = lit.has(at); }
      run += letter;
    });
    flush();
    return parts;
  };

  const moreLike = (row) => {
    const button = Object.assign(document.createElement("button"), {
      type: "button", className: "like", textContent: `${row.alike.length} more like this` });
    button.addEventListener("click", () => {
      state.like = nameOf(row);
      box.value = "";
      search();
      results.querySelector("a")?.focus();
    });
    return button;
  };

  const item = ({ row }) => {
    const entry = document.createElement("li");
    const link = document.createElement("a");
    link.href = `m/${row.run}/${row.name}.html#${row.pole}`;
    const said = document.createElement("bdi");
    said.className = row.label ? row.doubt ? "said doubtful" : "said" : "said without";
    said.append(row.label ? marked(row.label) : row.state);
    const meta = document.createElement("span");
    meta.className = "meta";
    const sign = Object.assign(document.createElement("span"), {
      className: `sign ${row.pole}`, textContent: row.pole === "max" ? "\u25b2 max" : "\u25bc min" });
    const id = document.createElement("code");
    id.append(marked(row.id));
    const model = document.createElement("bdi");
    model.textContent = row.model;
    meta.append(sign, id, model);
    const elsewhere = state.words.filter((word) => row.all.includes(word) && !row.texts[0].includes(word) && !row.texts[1].includes(word));
    if (elsewhere.length) {
      const place = elsewhere.some((word) => row.texts[2].includes(word)) ? "keywords" : "promoted tokens";
      meta.append(Object.assign(document.createElement("span"), { textContent: `${elsewhere.slice(0, 3).join(", ")} in its ${place}` }));
    }
    if (row.score !== null) {
      meta.append(Object.assign(document.createElement("span"), {
        textContent: `F1 ${row.score.toFixed(2)}${row.interval && ` (${row.interval})`}${row.doubt ? `, ${row.doubt}` : ""}` }));
    }
    if (row.kind === "control") meta.append(`control: ${row.writer}`);
    if (row.sigma !== null) meta.append(Object.assign(document.createElement("span"), { textContent: `\u03c3 ${row.sigma}` }));
    link.append(said, meta);
    entry.append(link);
    if (row.alike.length && nameOf(row) !== state.like) entry.append(moreLike(row));
    return entry;
  };

  const draw = () => {
    results.replaceChildren(...state.hits.slice(0, state.shown).map(item));
    more.hidden = state.hits.length <= state.shown;
  };

  // What differs from the form's beginning goes into the address, so that a search can be shared.
  const start = new URLSearchParams(location.search);
  const remember = () => {
    const address = new URLSearchParams();
    if (box.value.trim()) address.set("q", box.value.trim());
    else if (state.like) address.set("like", state.like);
    if (field("sort").value === "score") address.set("sort", "score");
    for (const name of ["model", "pole", "writer"]) {
      const inputs = [...facets.querySelectorAll(`input[name=${name}]`)];
      if (inputs.some((input) => !input.checked)) {
        for (const value of chosen(name)) address.append(name, value);
        if (!chosen(name).size) address.append(name, "");
      }
    }
    for (const name of ["low", "high"]) if (field(name).value !== "") address.set(name, field(name).value);
    if (field("controls").checked) address.set("controls", "1");
    if (!field("labelled").checked) address.set("labelled", "0");
    const text = address.toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
  };

  // Anybody can write an address; what is no layer there leaves the field empty.
  const layer = (text) => /^\d{1,9}$/.test(text ?? "") ? text : "";
  const restore = () => {
    box.value = start.get("q") ?? "";
    for (const name of ["model", "pole"]) {
      if (!start.has(name)) continue;
      for (const input of facets.querySelectorAll(`input[name=${name}]`)) {
        input.checked = start.getAll(name).includes(input.value);
      }
    }
    for (const name of ["low", "high"]) field(name).value = layer(start.get(name));
    state.like = start.has("q") ? "" : start.get("like") ?? "";
    if (start.get("sort") === "score") field("sort").value = "score";
    field("controls").checked = start.get("controls") === "1";
    field("labelled").checked = start.get("labelled") !== "0";
  };

  let waiting = 0;
  const later = () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, DELAY);
  };
  const now = (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    search();
  };
  // Typing asks something new.
  box.addEventListener("input", () => { state.like = ""; later(); });
  facets.addEventListener("input", later);
  document.getElementById("form").addEventListener("submit", now);
  facets.addEventListener("submit", now);
  more.addEventListener("click", () => {
    const before = state.shown;
    state.shown += PAGE;
    draw();
    results.children[before]?.querySelector("a").focus();
  });

  // Up and down walk through the results, from the box and back to it.
  document.addEventListener("keydown", (event) => {
    const links = [...results.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    if (event.key === "Escape" && at >= 0) box.focus();
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    if (document.activeElement !== box && at < 0) return;
    const next = at + (event.key === "ArrowDown" ? 1 : -1);
    if (next >= links.length) return;
    event.preventDefault();
    (next < 0 ? box : links[next]).focus();
  });

  restore();
  if (matchMedia("(max-width: 52rem)").matches) document.querySelector(".narrow").open = false;
  box.focus({ preventScroll: true });
  // Those that the address asks for come first.
  for (const model of [...models].sort((a, b) => b.checked - a.checked)) load(model);
  if (!models.length) search();
}
