// Copies a direction: its address, and what stands on its page as Markdown, BibTeX and JSON.
"use strict";
{
  const { state, ROLES } = WA;
  const POLES = ["max", "min"];
  const find = (selector, within = document) => within.querySelector(selector);
  const line = (element) => (element?.textContent ?? "").replaceAll(/\s+/gu, " ").trim();
  const shown = (text) => text.split("\0").map((part, at) => (at % 2 ? `\u27e6${part.split(" ")[0]}\u27e7` : part)).join("");
  const id = line(find("h1"));
  const model = line(find(".crumbs a[href='index.html']"));
  // What lies on a disk has no address for others.
  const isFile = location.protocol === "file:";
  const address = () => location.href.split("#")[0];
  const fact = (name) => line([...document.querySelectorAll(".rows dt, .figures dt")]
    .find((term) => line(term) === name)?.nextElementSibling);

  const label = (pole) => line(find(`#${pole}-label`));
  const score = (pole) => {
    const row = [...document.querySelectorAll(`#${pole} .score tbody tr`)].find((one) => line(one.firstElementChild) === "F1");
    return row ? line(row.children[1]) : "";
  };
  // For programs: no text where there is no label, and numbers as such.
  const labelled = (pole) => {
    if (!find(`#${pole}-label bdi.label`)) return { said: label(pole) };
    const [f1, ...ends] = score(pole).match(/\d\.\d\d/gu)?.map(Number) ?? [];
    return { text: label(pole), f1, f1_interval: ends.length ? ends : undefined };
  };
  // The examples of the joint list, with the peak apart from what stands around it.
  const examples = (most = Infinity) => {
    const { header, texts } = state.page;
    const counts = [0, 0];
    return header.examples.map((row, at) => ({ row, text: texts[at] }))
      .filter(({ row }) => row[2] & 1 && (counts[row[0]] += 1) <= most)
      .map(({ row, text }) => {
        const peak = text.pieces.findIndex((piece) => piece.first + piece.tokens > row[10]);
        const part = (from, to) => shown(text.pieces.slice(from, to).map((piece) => piece.text).join(""));
        return {
          pole: POLES[row[0]], role: ROLES[row[1]], value: row[3], source: shown(header.sources[row[5]]), document: row[6],
          before: part(0, peak), peak: part(peak, peak + 1), after: part(peak + 1),
        };
      });
  };

  const flat = (text) => text.replaceAll(/\s+/gu, " ");
  // Text that stays text within a line of Markdown: no link, and no mention of anybody either.
  const marked = (text) => flat(text).replaceAll(/[\\`*_{}[\]<>()#!|~&:$^+=-]/gu, (sign) => `\\${sign}`)
    .replaceAll("@", "&#64;").replaceAll("www.", "www\\.");
  const markdown = () => {
    const name = marked(`${model}, ${id}`);
    const lines = [`### ${isFile ? name : `[${name}](${address()})`}`, "", `Content hash ${fact("content hash")}.`, ""];
    for (const pole of POLES) {
      const f1 = score(pole);
      lines.push(`- **${pole}:** ${marked(label(pole))}${f1 && ` (F1 ${f1})`}`);
      for (const one of examples(3).filter((example) => example.pole === pole)) {
        const peak = one.peak.trim() ? `**${marked(one.peak.trim())}**` : "\u2423";
        lines.push(`  - ${one.value.toFixed(3)}, ${marked(one.source)} \\#${one.document}: \u201c${marked(one.before).slice(-160)} ${peak} ${marked(one.after).slice(0, 160)}\u201d`);
      }
    }
    return `${lines.join("\n")}\n`;
  };

  // Not \\{, which BibTeX would count as a brace that is open.
  const TEX = { "\\": "\\textbackslash{}", "{": "\\textbraceleft{}", "}": "\\textbraceright{}", "%": "\\%", "#": "\\#", "&": "\\&", "$": "\\$", _: "\\_", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" };
  const tex = (text) => flat(text).replaceAll(/[\\{}%#&$_~^]/gu, (sign) => TEX[sign]);
  const bibtex = () => {
    const authors = [...document.querySelectorAll("meta[name=author]")].map((meta) => `{${tex(meta.content)}}`);
    const fields = {
      title: `{${tex(`${model}, ${id}: ${label("max")} / ${label("min")}`)}}`,
      author: authors.join(" and "),
      howpublished: `weightatlas ${tex(fact("weightatlas"))}`,
      note: tex(`Tuned ${fact("tuned")}, base ${fact("base")}; content hash ${fact("content hash")}`),
      url: isFile ? "" : address().replaceAll(/[{}\\]/gu, encodeURIComponent),
      urldate: new Date().toISOString().slice(0, 10),
    };
    const key = `${model}-${id}`.toLowerCase().replaceAll(/[^a-z0-9]+/gu, "-").replaceAll(/^-|-$/gu, "");
    const lines = Object.entries(fields).filter(([, value]) => value).map(([name, value]) => `  ${name} = {${value}}`);
    return `@misc{${key},\n${lines.join(",\n")}\n}\n`;
  };

  const json = () => `${JSON.stringify({
    id, model, address: isFile ? null : address(), content_hash: fact("content hash"), tuned: fact("tuned"), base: fact("base"),
    labels: Object.fromEntries(POLES.map((pole) => [pole, labelled(pole)])),
    examples: examples(),
  }, null, 1)}\n`;

  // Where the browser does not let a page copy, its text is shown to be copied by hand.
  const byHand = (text) => {
    const dialog = document.createElement("dialog");
    dialog.className = "by-hand";
    const field = document.createElement("textarea");
    Object.assign(field, { value: text, readOnly: true, rows: 12 });
    field.setAttribute("aria-label", "Text to copy");
    const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Close" });
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    dialog.append(field, close);
    document.body.append(dialog);
    dialog.showModal();
    field.select();
  };

  const status = document.createElement("span");
  status.className = "copied";
  status.setAttribute("role", "status");
  let waiting = 0;
  const put = async (name, text) => {
    try {
      await navigator.clipboard.writeText(text);
      status.textContent = `${name} copied`;
      clearTimeout(waiting);
      waiting = setTimeout(() => { status.textContent = ""; }, 2500);
    } catch {
      byHand(text);
    }
  };
  WA.copying = () => {
    const place = find("[data-copy]");
    for (const [name, make] of [["Link", () => location.href], ["Markdown", markdown], ["BibTeX", bibtex], ["JSON", json]]) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
      button.dataset.copied = name.toLowerCase();
      button.setAttribute("aria-label", `Copy ${name}`);
      button.addEventListener("click", () => put(name, make()));
      place.append(button);
    }
    place.append(status);
  };
}
