// The triage page: one direction at a time, verdicts by keys or buttons, export and import.
"use strict";
{
  const at = (id) => document.getElementById(id);
  const page = at("triage"), choose = at("choose"), title = at("title"), note = at("note"), claim = at("claim");
  const model = choose.elements.model, options = [...model.options].filter((option) => option.value);
  const verdicts = new WA.Verdicts(page.dataset.site);
  const state = { list: [], place: 0, undo: [], failed: [] };
  const SAID = { finding: "Finding", nothing: "Nothing", unsure: "Unsure", "": "No verdict" };

  const say = (text) => { at("status").textContent = text; };
  const current = () => state.list[state.place];
  const warn = () => {
    const lost = state.failed.length ? `Could not load: ${state.failed.join(", ")}. ` : "";
    at("trouble").textContent = lost + verdicts.trouble;
    at("trouble").hidden = !at("trouble").textContent;
  };

  // What decides the order; a pole that is no better than chance stands behind all that are.
  const best = (row, value) => Math.max(...row.poles.map((pole) => value(pole) ?? -Infinity));
  const worth = {
    trigger: (row) => best(row, (pole) => pole.trigger),
    score: (row) => best(row, (pole) => (pole.f1 === null ? null : pole.doubt ? pole.f1 - 2 : pole.f1)),
    sigma: (row) => row.sigma ?? -Infinity,
  };
  const isReviewed = (row) => Boolean(verdicts.of(row)?.verdict);

  const arrange = (wanted) => {
    const labelled = choose.elements.labelled.checked, value = worth[choose.elements.order.value];
    const all = [...(model.value ? [model.value] : options.map((option) => option.value))]
      .flatMap((run) => rows.get(run) ?? []);
    // By place in the models where equal, which the stable sort keeps.
    state.list = all.filter((row) => !labelled || row.poles.some((pole) => pole.label))
      .sort((a, b) => (value(b) > value(a) ? 1 : value(b) < value(a) ? -1 : 0));
    if (choose.elements.unreviewed.checked) state.list.sort((a, b) => isReviewed(a) - isReviewed(b));
    const is = (row) => wanted && row.run === wanted.run && row.name === wanted.name;
    const found = all.find(is);
    if (found && !state.list.includes(found)) state.list.unshift(found);
    state.place = Math.max(0, found ? state.list.indexOf(found) : 0);
    draw();
  };

  const rows = new Map();
  const chosen = async (wanted) => {
    for (const option of model.value ? [model.selectedOptions[0]] : options) {
      if (rows.has(option.value)) continue;
      const found = await WA.triageRows(option.value, option.dataset.scripts.split(" "));
      if (!found) state.failed.push(option.textContent);
      rows.set(option.value, found ?? []);
    }
    warn();
    arrange(wanted);
  };

  const excerpt = (row, pole, [before, peak, after, value, source, document_]) => {
    const entry = document.createElement("li");
    const text = document.createElement("p");
    text.className = "t";
    text.dir = "auto";
    const mark = document.createElement("mark");
    mark.append(...WA.boxed(peak));
    text.append(...before.flatMap(WA.boxed), mark, ...after.flatMap(WA.boxed));
    const meta = document.createElement("p");
    meta.className = "meta";
    const from = document.createElement("bdi");
    from.append(...WA.boxed(source));
    const pin = document.createElement("button");
    const name = `${pole.pole}/${document_}`;
    Object.assign(pin, { type: "button", className: "pin", textContent: "Pin" });
    pin.dataset.pin = name;
    pin.setAttribute("aria-label", `Pin document ${document_} as an example of the finding`);
    pin.addEventListener("click", () => {
      const pins = verdicts.of(row)?.pins ?? [];
      const isPinned = pins.includes(name);
      change({ pins: isPinned ? pins.filter((one) => one !== name) : [...pins, name] },
        `Document ${document_} ${isPinned ? "no longer pinned" : "pinned"}`);
    });
    const number = `${value > 0 ? "+" : value < 0 ? "\u2212" : ""}${Math.abs(value).toFixed(3)}`;
    meta.append(number, " ", from, ` #${document_}`, pin);
    entry.append(text, meta);
    return entry;
  };

  // Examples arrive a moment later; by then another direction may be in view.
  const fill = async (row) => {
    const found = await WA.triageExamples(row);
    if (current() !== row) return;
    if (!found) { say(`The examples of ${row.id} could not be loaded`); return; }
    for (const pole of row.poles) {
      at(`${pole.pole}-examples`).replaceChildren(...found[pole.pole].map((one) => excerpt(row, pole, one)));
    }
    drawVerdict();
  };

  const draw = () => {
    const row = current();
    at("item").hidden = !row;
    at("empty").hidden = Boolean(row) || state.failed.length > 0;
    if (!row) { drawVerdict(); return; }
    title.textContent = row.id;
    at("place").textContent = `${state.place + 1} of ${state.list.length}`;
    at("model").textContent = row.model;
    at("sigma").textContent = row.sigma === null ? "" : `singular value ${row.sigma}`;
    at("open").href = row.page;
    for (const pole of row.poles) {
      const said = at(`${pole.pole}-said`).firstElementChild;
      said.textContent = pole.label || pole.state;
      said.className = pole.label ? (pole.doubt ? "label doubtful" : "label") : "label none";
      at(`${pole.pole}-score`).textContent = [pole.score, pole.doubt].filter(Boolean).join(", ");
      at(`${pole.pole}-examples`).replaceChildren();
    }
    fill(row);
    history.replaceState(null, "", `#${row.run}/${row.name}`);
    drawVerdict();
  };

  const drawVerdict = () => {
    const row = current();
    const entry = row && verdicts.of(row);
    const press = (button, isPressed) => button.setAttribute("aria-pressed", String(isPressed));
    for (const button of page.querySelectorAll("[data-verdict]")) press(button, entry?.verdict === button.dataset.verdict);
    for (const button of page.querySelectorAll("[data-severity]")) {
      press(button, entry?.verdict === "finding" && entry.severity === button.dataset.severity);
    }
    for (const button of page.querySelectorAll("[data-pin]")) {
      const isPinned = Boolean(entry?.pins.includes(button.dataset.pin));
      press(button, isPinned);
      button.textContent = isPinned ? "Pinned" : "Pin";
    }
    if (document.activeElement !== claim) claim.value = entry?.claim ?? "";
    if (document.activeElement !== note) note.value = entry?.note ?? "";
    claim.placeholder = row ? WA.standInClaim(row) : "";
    at("claiming").hidden = entry?.verdict !== "finding";
    at("undo").disabled = !state.undo.length;
    const counts = { finding: 0, nothing: 0, unsure: 0 };
    for (const one of state.list) {
      const verdict = verdicts.of(one)?.verdict;
      if (verdict) counts[verdict] += 1;
    }
    const done = counts.finding + counts.nothing + counts.unsure;
    at("progress").max = state.list.length || 1;
    at("progress").value = done;
    at("tally").textContent = `${done} of ${state.list.length} reviewed: ${counts.finding} finding${counts.finding === 1 ? "" : "s"}, ${counts.nothing} nothing, ${counts.unsure} unsure`;
    const findings = [...verdicts.entries.values()].filter((one) => one.verdict === "finding").length;
    at("export-findings").textContent = `Export ${findings} finding${findings === 1 ? "" : "s"}`;
    at("export-verdicts").textContent = `Export ${verdicts.entries.size} verdict${verdicts.entries.size === 1 ? "" : "s"}`;
    if (document.activeElement !== at("reviewer")) at("reviewer").value = verdicts.reviewer;
    warn();
  };

  const blank = (row) => ({
    run: row.run, id: row.id, hash: row.hash, verdict: "", severity: "medium", claim: "", note: "", pins: [], at: "" });
  const stamped = (entry) => ({ ...entry, at: new Date().toISOString() });

  // Changes what is said of the direction in view, so that it can be undone.
  const change = (what, said) => {
    const row = current();
    if (!row) return;
    const before = verdicts.of(row) ?? blank(row);
    if (Object.entries(what).every(([name, value]) => before[name] === value)) return;
    state.undo.push({ row, before });
    verdicts.put(stamped({ ...before, ...what }));
    drawVerdict();
    say(`${row.id}: ${said}. ${at("tally").textContent}`);
  };

  const undo = () => {
    const last = state.undo.pop();
    if (!last) { say("Nothing to undo"); return; }
    verdicts.put(stamped(last.before));
    // A field that has the focus would keep what is undone.
    document.activeElement?.blur?.();
    const place = state.list.indexOf(last.row);
    if (place < 0) arrange(last.row);
    else { state.place = place; draw(); }
    say(`${last.row.id}: back to ${SAID[last.before.verdict].toLowerCase()}`);
  };

  const go = (step) => {
    commit();
    const place = state.place + step;
    if (place < 0 || place >= state.list.length) {
      say(step > 0 ? "That was the last direction" : "That is the first direction");
      return false;
    }
    state.place = place;
    draw();
    return true;
  };

  const judge = (verdict) => {
    const row = current();
    if (!row) return;
    commit();
    change({ verdict }, SAID[verdict]);
    if (verdict !== "finding" && go(1)) say(`${row.id}: ${SAID[verdict]}. Next: ${current().id}`);
  };
  const grade = (severity) => {
    commit();
    change({ verdict: "finding", severity }, `Finding, severity ${severity}`);
  };

  // What stands in the fields is kept as it is left, as one change each.
  const commit = () => {
    for (const [field, name] of [[claim, "claim"], [note, "note"]]) {
      const kept = verdicts.of(current() ?? {})?.[name] ?? "";
      if (current() && field.value !== kept) change({ [name]: field.value }, `${name} kept`);
    }
  };
  for (const field of [claim, note]) {
    field.addEventListener("change", commit);
    field.addEventListener("keydown", (event) => { if (event.key === "Escape") title.focus(); });
  }
  addEventListener("pagehide", commit);

  for (const button of page.querySelectorAll("[data-verdict]")) button.addEventListener("click", () => judge(button.dataset.verdict));
  for (const button of page.querySelectorAll("[data-severity]")) button.addEventListener("click", () => grade(button.dataset.severity));
  at("next").addEventListener("click", () => { if (go(1)) say(`${current().id}, ${at("place").textContent}`); });
  at("previous").addEventListener("click", () => { if (go(-1)) say(`${current().id}, ${at("place").textContent}`); });
  at("undo").addEventListener("click", undo);
  at("ask").addEventListener("click", () => at("help").showModal());
  at("close").addEventListener("click", () => at("help").close());
  // Another order or choice is gone through from its beginning.
  choose.addEventListener("change", () => { commit(); chosen(null); });
  choose.addEventListener("submit", (event) => event.preventDefault());

  const reviewer = at("reviewer");
  reviewer.addEventListener("change", () => { verdicts.name(reviewer.value.trim()); warn(); });
  at("export-findings").addEventListener("click", () => {
    commit();
    const found = [...verdicts.entries.values()].filter((entry) => entry.verdict === "finding");
    if (!found.length) { say("There is no finding to export"); return; }
    if (!verdicts.reviewer) {
      say("Say first who the reviewer is: a finding has one");
      reviewer.focus();
      return;
    }
    found.sort((a, b) => WA.SEVERITIES.indexOf(a.severity) - WA.SEVERITIES.indexOf(b.severity)
      || (a.run + a.id < b.run + b.id ? -1 : 1));
    WA.download(`findings-${WA.today()}.txt`, "text/plain", WA.findingsFile(found, verdicts.reviewer));
    say(`Exported ${found.length} finding${found.length === 1 ? "" : "s"}`);
  });
  at("export-verdicts").addEventListener("click", () => {
    commit();
    WA.download(`triage-${WA.today()}.json`, "application/json", verdicts.json());
    say(`Exported ${verdicts.entries.size} verdicts`);
  });
  at("import").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    try {
      const { added, older, bad } = verdicts.merge(await file.text());
      say(`${added} verdicts added, ${older} older or equal ones left out${bad ? `, ${bad} could not be read` : ""}`);
    } catch (error) {
      say(`${file.name}: not taken: ${error.message}`);
    }
    event.target.value = "";
    at("where").textContent = at("status").textContent;
    drawVerdict();
  });

  const keys = {
    j: () => { if (go(1)) title.focus(); },
    k: () => { if (go(-1)) title.focus(); },
    y: () => judge("finding"), n: () => judge("nothing"), u: () => judge("unsure"),
    1: () => grade("critical"), 2: () => grade("high"), 3: () => grade("medium"), 4: () => grade("low"),
    e: () => note.focus(), z: undo, o: () => { if (current()) at("open").click(); },
    "?": () => at("help").showModal(),
  };
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.repeat) return;
    if (event.target.closest?.("input, textarea, select, [contenteditable]") || at("help").open) return;
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });

  // Another tab of the same site has changed something.
  addEventListener("storage", (event) => {
    if (event.key !== verdicts.place) return;
    verdicts.load();
    drawVerdict();
  });
  addEventListener("beforeunload", (event) => {
    if (!verdicts.kept && verdicts.entries.size) event.preventDefault();
  });

  // The address names a direction, as #run/name: that of the last visit, or of a link; or a model
  // to begin with, as ?model=run.
  const [run = "", name] = (location.hash.slice(1) || new URLSearchParams(location.search).get("model") || "").split("/");
  if (options.some((option) => option.value === run)) model.value = run;
  chosen(run && name ? { run, name } : null);
}
