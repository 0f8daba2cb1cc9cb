// What the triage page loads: rows of models, and the examples of the direction in view.
//
// Labels and scores are those of search; examples come from the file of the direction's own page.
"use strict";
{
  // Examples of each pole, and pieces of text on each side of their peak.
  const EXAMPLES = 3, AROUND = 14;
  // Pages of directions that are kept, so that going back needs nothing.
  const KEPT = 30;

  const own = new Map();
  const columns = new Map();
  WA.triage = (run, data) => own.set(run, data);
  WA.add = (run, data) => columns.set(run, [...columns.get(run) ?? [], data]);

  const lines = (text) => text.split("\n");
  const rowsOf = (run) => {
    const { hashes, triggers } = own.get(run);
    const hash = lines(hashes);
    return columns.get(run).sort((a, b) => a.first - b.first).flatMap((data) => {
      if (!data.layers.length) return [];
      const ids = lines(data.ids), names = lines(data.names);
      const labels = lines(data.labels), intervals = lines(data.intervals);
      return ids.map((id, at) => ({
        run, id, name: names[at], page: WA.addressOf(run, names[at], data),
        file: `m/${run}/${data.shard ? `s/${Math.floor((data.first + at) / data.shard) + 1}` : `d/${names[at]}`}.js`, hash: hash[data.first + at], sigma: data.sigmas[at], model: data.title,
        isControl: data.kinds[data.kinds_of[at]] !== "weights",
        poles: ["max", "min"].map((pole, side) => {
          const row = 2 * at + side;
          const f1 = data.scores[row] === null ? null : data.scores[row] / 100;
          const range = intervals[row] && ` (${intervals[row].replace(" ", "\u2013")})`;
          return {
            pole, label: labels[row], state: data.states[data.states_of[row]], f1,
            score: f1 === null ? "" : `F1 ${f1.toFixed(2)}${range}`,
            doubt: data.doubts[data.doubts_of[row]], trigger: triggers[2 * data.first + row],
          };
        }),
      })).filter((row) => !row.isControl);
    });
  };

  // The rows of a model's directions from the weights; null if one of its scripts is missing.
  WA.triageRows = async (run, scripts) => {
    try {
      await Promise.all(scripts.map(WA.load));
      return rowsOf(run);
    } catch {
      return null;
    }
  };

  // A file does not say whose it is, so one is loaded at a time.
  const pages = new Map();
  let last = Promise.resolve();
  const pageOf = ({ file: address }) => {
    if (!pages.has(address)) {
      if (pages.size >= KEPT) pages.delete(pages.keys().next().value);
      last = last.then(async () => {
        let found = null;
        WA.page = (size, letters) => { found = WA.unpack(size, letters); };
        WA.shard = (size, letters) => { found = WA.inflate(size, letters).then(WA.parts); };
        try {
          await WA.load(address);
          return await found;
        } catch {
          pages.delete(address);
          return null;
        }
      });
      pages.set(address, last);
    }
    return pages.get(address);
  };

  // By pole: [texts before the peak, its own, texts after it, value, source, document]; null if lost.
  WA.triageExamples = async (row) => {
    const held = await pageOf(row);
    if (!held) return null;
    const page = held.names ? WA.read(held.content[held.names.indexOf(row.name)]) : held;
    const found = { max: [], min: [] };
    page.header.examples.forEach((row, at) => {
      const list = found[row[0] ? "min" : "max"];
      if (!(row[2] & 1) || list.length >= EXAMPLES) return;
      const meta = [row[3], page.header.sources[row[5]], row[6]];
      // Nothing is quoted from sources that readers are warned of.
      if (page.header.veiled?.includes(row[5])) {
        list.push([[], "", ["hidden here; shown on a click on the direction\u2019s page"], ...meta]);
        return;
      }
      const { pieces } = page.texts[at];
      const peak = pieces.findIndex((piece) => piece.first + piece.tokens > row[10]);
      const text = (from, to) => pieces.slice(Math.max(0, from), to).map((piece) => piece.text.replaceAll("\n", " \u21b5 "));
      list.push([
        [peak > AROUND || row[9] ? "\u2026" : "", ...text(peak - AROUND, peak)], pieces[peak]?.text ?? "",
        [...text(peak + 1, peak + 1 + AROUND), pieces.length > peak + 1 + AROUND ? "\u2026" : ""],
        ...meta,
      ]);
    });
    return found;
  };
}
