// Findings as files: what triage exports and `weightatlas findings import` takes apart.
"use strict";
globalThis.WA ??= {};
{
  // A text as a YAML scalar in double quotes, which JSON nearly is: YAML breaks lines at, or
  // refuses, more characters than JSON, and a half of a surrogate pair is no character.
  const quoted = (text) => JSON.stringify(text.replace(/\p{Surrogate}/gu, "\ufffd"))
    .replace(/[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]/g,
      (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);

  const two = (number) => String(number).padStart(2, "0");
  WA.today = (now = new Date()) => `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;

  // What a finding claims that nobody put into words yet.
  WA.standInClaim = ({ run, id }) => `${id} of ${run} needs a closer look`;

  const finding = (entry, reviewer, date) => {
    const cited = `${entry.run}/${entry.id}`;
    const lines = [
      "---",
      `claim: ${quoted(entry.claim.trim() || WA.standInClaim(entry))}`,
      `severity: ${entry.severity}`,
      "status: open",
      `reviewer: ${quoted(reviewer)}`,
      `date: ${date}`,
      "directions:",
      `  - {id: ${quoted(cited)}, hash: ${quoted(entry.hash)}}`,
    ];
    if (entry.pins.length) lines.push("examples:", ...entry.pins.map((pin) => `  - ${quoted(`${cited}#${pin}`)}`));
    lines.push("---", "", entry.note.replace(/\r\n?/g, "\n").trim());
    return lines.join("\n").trimEnd();
  };

  const nameOf = (entry, taken) => {
    const plain = `${entry.run}-${entry.id}`.toLowerCase().replace(/[^a-z0-9._-]+/g, "-")
      .replace(/\.{2,}/g, ".").replace(/^[._-]+/, "").slice(0, 100) || "finding";
    let name = `${plain}.md`;
    for (let n = 2; taken.has(name); n += 1) name = `${plain}-${n}.md`;
    taken.add(name);
    return name;
  };

  // One text of all findings, each after a line that names its file; see docs/findings.md.
  WA.findingsFile = (entries, reviewer, date = WA.today()) => {
    const taken = new Set();
    return entries.map((entry) => {
      const lines = finding(entry, reviewer, date).split("\n")
        .map((line) => (/^\\*=== finding: /.test(line) ? `\\${line}` : line));
      return `=== finding: ${nameOf(entry, taken)} ===\n${lines.join("\n")}\n`;
    }).join("");
  };

  // Hands a text to the reader as a file.
  WA.download = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
    link.download = name;
    link.hidden = true;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
}
