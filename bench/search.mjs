// Mean reciprocal ranks by the site's search and by MiniSearch over the same rows; run by search.py:
//
//     node bench/search.mjs SITE QUERIES.json node_modules/minisearch
//
// Prints one JSON object. A row's rank is its place among all found; 0 is added for one not found.
import fs from "node:fs";
import path from "node:path";
import vm from "node:vm";

const [site, given, library] = process.argv.slice(2);
const { default: MiniSearch } = await import(path.resolve(library, "dist/es/index.js"));
const asked = JSON.parse(fs.readFileSync(given, "utf8"));
const run = (file) => vm.runInThisContext(fs.readFileSync(file, "utf8"), file);
for (const name of ["search-words", "search-part", "search-rank"]) run(path.join(site, "static", `${name}.js`));
const index = new WA.Index();
WA.add = (name, data) => index.add(name, data);
for (const name of fs.readdirSync(path.join(site, "data")).sort()) run(path.join(site, "data", name));

while (index.readOne());

const found = {};
const put = (name, value) => { found[name] = value; };
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const percentile = (values, share) => values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))];

const rowOf = (key) => index.rowOf(key.split(" ")[0], Number(key.split(" ")[1]));
const own = (query, key) => {
  const row = rowOf(key), { scores } = index.find(query), sigmas = index.numbers("sigmas");
  if (!scores[row]) return 0;
  let rank = 1;
  for (let other = 0; other < scores.length; other += 1) {
    const difference = scores[other] - scores[row] || sigmas[other] - sigmas[row] || row - other;
    if (other !== row && scores[other] && difference > 0) rank += 1;
  }
  return 1 / rank;
};

const fields = ["labels", "ids", "keywords", "peaks", "tokens"];
const mini = new MiniSearch({ fields, idField: "row" });
const began = performance.now();
const rows = Array.from({ length: index.size }, (_, row) => ({ row, ...Object.fromEntries(fields.map((name) => [name, index.text(name, row)])) }));
// In no order that could help: ties would go to rows by their place.
let state = 7;
const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
for (let at = rows.length - 1; at > 0; at -= 1) {
  const other = Math.floor(random() * (at + 1));
  [rows[at], rows[other]] = [rows[other], rows[at]];
}
mini.addAll(rows);
put("MiniSearch index made, ms", Math.round(performance.now() - began));
const theirs = (boost) => (query, key) => {
  const hits = mini.search(query, { prefix: true, fuzzy: 0.2, combineWith: "AND", boost });
  const at = hits.findIndex((hit) => hit.id === rowOf(key));
  return at < 0 ? 0 : 1 / (at + 1);
};
const searches = { own, MiniSearch: theirs({}), "MiniSearch, weighted": theirs({ labels: 4, ids: 4, keywords: 2, peaks: 1.5, tokens: 1 }) };
for (const kind of ["words", "typo"]) {
  for (const [name, search] of Object.entries(searches)) {
    const times = [], ranks = [];
    for (const { key, [kind]: query } of asked) {
      const start = performance.now();
      ranks.push(search(query, key));
      times.push(performance.now() - start);
    }
    const shown = [0.5, 0.95].map((share) => percentile(times, share).toFixed(1)).join(", ");
    put(`${kind === "words" ? "two words" : "two words, one mistyped"}: MRR, ${name} (ms: median, 95%)`, `${mean(ranks).toFixed(3)} (${shown})`);
  }
}
process.stdout.write(JSON.stringify(found));
