// The verdicts of triage: kept in this browser by run and content hash, so that a site rendered
// again still has them. What is stored or imported may be anybody's: everything is checked.
"use strict";
globalThis.WA ??= {};
{
  const KIND = "weightatlas triage", VERSION = 1;
  const VERDICTS = ["", "finding", "nothing", "unsure"];
  const SEVERITIES = ["critical", "high", "medium", "low"];
  const text = (value, longest) => typeof value === "string" && value.length <= longest;

  // An entry with its own fields only, or null if it is none.
  const checked = (entry) => {
    if (entry === null || typeof entry !== "object") return null;
    const { run, id, hash, verdict, severity, claim = "", note = "", pins = [], at } = entry;
    if (!text(run, 100) || !text(id, 200) || !text(hash, 64) || !/^[a-z0-9][a-z0-9._-]*$/.test(run)) return null;
    if (!/^[0-9a-f]{8,64}$/.test(hash) || !VERDICTS.includes(verdict) || !SEVERITIES.includes(severity)) return null;
    if (!text(claim, 300) || !text(note, 20000) || !Array.isArray(pins) || pins.length > 50) return null;
    if (!pins.every((pin) => typeof pin === "string" && /^(max|min)\/\d{1,18}$/.test(pin))) return null;
    if (!text(at, 40) || Number.isNaN(Date.parse(at))) return null;
    return { run, id, hash, verdict, severity, claim, note, pins: [...pins], at };
  };
  const keyOf = ({ run, hash }) => `${run}/${hash}`;
  const isEmpty = (entry) => !entry.verdict && !entry.claim && !entry.note && !entry.pins.length;

  // Verdicts and notes of one site. `trouble` says what went wrong with keeping them, if anything.
  WA.Verdicts = class {
    constructor(site) {
      this.site = site;
      this.place = `wa-triage:${site}`;
      this.entries = new Map();
      this.reviewer = "";
      this.trouble = "";
      this.kept = true;
      this.load();
    }

    of(row) { return this.entries.get(keyOf(row)); }

    // Reads what is kept; another tab may have added to it.
    load() {
      let stored;
      try {
        stored = localStorage.getItem(this.place);
      } catch {
        this.lost("This browser keeps nothing for this page");
        return;
      }
      if (stored === null) return;
      try {
        const { entries, bad, reviewer } = this.parse(stored);
        this.entries = new Map(entries.map((entry) => [keyOf(entry), entry]));
        this.reviewer = reviewer;
        if (bad) this.damaged(stored, `${bad} of the verdicts kept here could not be read`);
      } catch (error) {
        this.damaged(stored, `The verdicts kept here could not be read (${error.message})`);
      }
    }

    // Keeps `entry` (or takes it away if it says nothing) and every other as it is stored now.
    put(entry) {
      if (this.kept) this.load();
      if (isEmpty(entry)) this.entries.delete(keyOf(entry));
      else this.entries.set(keyOf(entry), entry);
      this.save();
    }

    name(reviewer) {
      if (this.kept) this.load();
      this.reviewer = reviewer;
      this.save();
    }

    save() {
      try {
        localStorage.setItem(this.place, this.json());
      } catch {
        this.lost("This browser keeps no more for this page");
      }
    }

    json() {
      const entries = [...this.entries.values()].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
      return `${JSON.stringify({ kind: KIND, version: VERSION, site: this.site, reviewer: this.reviewer, entries }, null, 1)}\n`;
    }

    // The entries of such a text, and how many of them are none; throws if it is something else.
    parse(source) {
      const found = JSON.parse(source);
      if (found?.kind !== KIND || !Array.isArray(found.entries)) throw new TypeError("it holds no verdicts of triage");
      if (found.version !== VERSION) throw new TypeError(`its version is ${String(found.version).slice(0, 20)}, not ${VERSION}`);
      const entries = found.entries.map(checked).filter(Boolean);
      return {
        entries,
        bad: found.entries.length - entries.length,
        reviewer: text(found.reviewer, 200) ? found.reviewer : "",
      };
    }

    // Adds the entries of such a text, the later of two staying; says how many of each kind.
    merge(source) {
      const { entries, bad, reviewer } = this.parse(source);
      if (this.kept) this.load();
      let added = 0;
      for (const entry of entries) {
        const own = this.of(entry);
        if (own && Date.parse(own.at) >= Date.parse(entry.at)) continue;
        this.entries.set(keyOf(entry), entry);
        added += 1;
      }
      this.reviewer ||= reviewer;
      this.save();
      return { added, older: entries.length - added, bad };
    }

    damaged(stored, said) {
      try {
        localStorage.setItem(`${this.place}:damaged`, stored);
        this.trouble = `${said}; the text itself is still in the browser's storage as “${this.place}:damaged”.`;
      } catch {
        this.lost(said);
      }
    }

    lost(said) {
      this.kept = false;
      this.trouble = `${said}: export before you leave, or what you enter is gone.`;
    }
  };

  WA.SEVERITIES = SEVERITIES;
}
