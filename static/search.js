// The search page: loads the models' rows, keeps the address and the results in step with the form.
"use strict";
{
  const { count, made } = WA;
  const PAGE = 40;
  // From the last key to the search: below it a fast typist would see every word half-way.
  const DELAY = 80;
  // While scripts come in, results are drawn anew no more often than this.
  const MEANWHILE = 250;
  const box = document.getElementById("q");
  const form = document.getElementById("facets");
  const status = document.getElementById("status");
  const results = document.getElementById("results");
  const tokens = document.getElementById("tokens");
  const more = document.getElementById("more");
  const refused = document.getElementById("refused");
  const weights = form.querySelector("input[name=kind]").defaultValue;
  const index = new WA.Index();
  const facets = new WA.Facets(form, index, weights);
  const start = new URLSearchParams(location.search);
  const state = { shown: PAGE, like: "", answer: null, words: [] };

  const answerOf = (model) => {
    if (model < 0) return index.find(box.value);
    const scores = new Float32Array(index.size);
    const rows = [model, ...index.alike(model)];
    rows.forEach((row, at) => { scores[row] = rows.length - at; });
    return { scores, words: [], instead: [], named: [] };
  };

  const best = () => {
    const { scores } = state.answer;
    const passes = (row) => facets.passes(row) && (!scores || scores[row] > 0);
    const match = scores ? [scores, index.numbers("sigmas")] : [index.numbers("sigmas")];
    const lists = facets.sort === "score" ? [index.numbers("scores"), ...match] : match;
    return index.top(state.shown, passes, ...lists);
  };

  const search = () => {
    facets.read();
    // The row whose label the address asks others like.
    const model = state.like ? index.at(state.like) : -1;
    state.answer = answerOf(model);
    state.words = state.answer.words;
    state.shown = PAGE;
    const counts = facets.count(state.answer.scores);
    const n = draw();
    status.textContent = said(model, n, counts).join(" \u00b7 ");
    linkTokens();
    remember();
  };

  const said = (model, n, { all, unlabelled }) => {
    const query = box.value.trim(), byScore = facets.sort === "score";
    const poles = `${count(n)} ${n === 1 ? "pole" : "poles"}`;
    const order = byScore ? ", by score" : model >= 0 || query ? "" : ", by singular value";
    const parts = [model >= 0 ? `${poles} with labels like \u201c${index.text("labels", model)}\u201d${order}`
      : `${poles}${query ? " found" : ""}${order}`];
    const { instead, named } = state.answer;
    for (const { word, models: titles } of named) parts.push(`\u201c${word}\u201d for the model ${titles.join(" or ")}`);
    if (instead.length) parts.push(`no exact match, so also: ${instead.slice(0, 6).join(", ")}`);
    refused.hidden = n > 0 || !all;
    if (!n && unlabelled) parts.push(`${count(unlabelled)} without a label: untick \u201clabelled only\u201d to see them`);
    else if (!n && all) parts.push(`${count(all)} outside of what is chosen to narrow down`);
    return [...parts, ...loading.said()];
  };

  // Poles that peak mostly on the word that is asked for, and the page of all that do at times.
  const linkTokens = () => {
    const word = box.value.trim(), n = word ? index.peakingOn(WA.fold(word)) : 0;
    tokens.hidden = !n && (!word || /\s/u.test(word));
    tokens.replaceChildren(made("a", { href: `tokens.html?q=${encodeURIComponent(word)}` },
      n ? `${count(n)} ${n === 1 ? "pole peaks" : "poles peak"} mostly on \u201c${word}\u201d`
        : `Which directions peak on \u201c${word}\u201d?`));
  };

  const moreLike = (row) => {
    const button = made("button", { type: "button", className: "like" }, `${row.alike} more like this`);
    button.addEventListener("click", () => {
      state.like = row.address;
      box.value = "";
      search();
      results.querySelector("a")?.focus();
    });
    return button;
  };

  const draw = () => {
    const { rows, n } = best();
    results.replaceChildren(...rows.map((number) => {
      const row = WA.read(index, number), item = WA.entry(row, state.words, weights);
      if (row.alike && row.address !== state.like) item.append(moreLike(row));
      return item;
    }));
    more.hidden = n <= state.shown;
    return n;
  };

  // What is asked for goes into the address, so that it can be shared.
  const remember = () => {
    const address = new URLSearchParams();
    if (box.value.trim()) address.set("q", box.value.trim());
    else if (state.like) address.set("like", state.like);
    facets.remember(address);
    const text = address.toString();
    if (text !== location.search.slice(1)) history.replaceState(null, "", text ? `?${text}` : location.pathname);
  };

  let waiting = 0;
  const soon = (delay) => {
    clearTimeout(waiting);
    waiting = setTimeout(search, delay);
  };
  const now = (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    search();
  };
  // Typing asks something new.
  box.addEventListener("input", () => {
    state.like = "";
    soon(DELAY);
  });
  form.addEventListener("input", () => soon(DELAY));
  document.getElementById("form").addEventListener("submit", now);
  form.addEventListener("submit", now);
  refused.addEventListener("click", () => {
    facets.open();
    search();
    results.querySelector("a")?.focus();
  });
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

  // Words are read in idle time, so that the first key need not wait for them.
  const idle = globalThis.requestIdleCallback ?? ((task) => setTimeout(task, 50));
  const readAhead = () => {
    if (index.readOne()) idle(readAhead);
  };

  facets.restore(start);
  box.value = start.get("q") ?? "";
  state.like = start.has("q") ? "" : start.get("like") ?? "";
  if (matchMedia("(max-width: 52rem)").matches) document.querySelector(".narrow").open = false;
  box.focus({ preventScroll: true });

  // Those that the address asks for come first.
  const models = WA.modelsOf(facets.inputs.model).sort((a, b) => b.asked - a.asked);
  let meanwhile = 0;
  const loading = new WA.Loading(models, () => {
    if (loading.done) {
      clearTimeout(meanwhile);
      clearTimeout(waiting);
      search();
      idle(readAhead);
    } else if (!meanwhile) {
      meanwhile = setTimeout(() => {
        meanwhile = 0;
        search();
      }, status.textContent ? MEANWHILE : 0);
    }
  });
  WA.add = (run, data) => {
    loading.arrived();
    index.add(run, data);
  };
  loading.start();
  if (!models.length) search();
}
