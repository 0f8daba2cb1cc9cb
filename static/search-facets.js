// Which rows does the form let through, how many would each facet add, and how does it stand in the
// address? Every facet has a bit; a row carries the bits of those that refuse it, so that it is
// known at once which it would pass without one of them.
"use strict";
globalThis.WA ??= {};
{
  const { count } = WA;
  const MODEL = 1, POLE = 2, WRITER = 4, LAYER = 8, KIND = 16, SCORE = 32, LABELLED = 64;
  const POLES = ["max", "min"];
  const SETS = ["model", "pole", "writer", "kind"];
  // What the fields of bounds may hold; anybody can write an address.
  const BOUNDS = { low: /^\d{1,9}$/, high: /^\d{1,9}$/, least: /^(?:0|1|0?\.\d{1,4}|1\.0{1,4})$/, most: /^(?:0|1|0?\.\d{1,4}|1\.0{1,4})$/ };

  class Facets {
    constructor(form, index, weights) {
      this.form = form;
      this.index = index;
      // The value of the kind that is no control.
      this.weights = weights;
      this.refused = new Uint8Array(0);
      this.inputs = Object.fromEntries(SETS.map((name) => [name, [...form.querySelectorAll(`input[name=${name}]`)]]));
      this.counts = new Map(SETS.flatMap((name) => this.inputs[name].map((input) => [`${name} ${input.value}`, this.#place(input)])));
      this.counts.set("labelled", this.#place(form.elements.labelled));
      this.counts.set("scored", form.querySelector("#scored"));
    }

    #place(input) {
      return input.closest("label").querySelector(".count");
    }

    get sort() {
      return this.form.elements.sort.value;
    }

    chosen(name) {
      return new Set(this.inputs[name].filter((input) => input.checked).map((input) => input.value));
    }

    #bound(name, other) {
      const { value } = this.form.elements[name];
      return value === "" || !Number.isFinite(Number(value)) ? other : Number(value);
    }

    // To be called when the form has changed or rows have come.
    read() {
      const { index } = this, chosen = Object.fromEntries(SETS.map((name) => [name, this.chosen(name)]));
      const low = this.#bound("low", 0), high = this.#bound("high", Infinity);
      const least = Math.round(100 * this.#bound("least", 0)), most = Math.round(100 * this.#bound("most", 1));
      const bounded = ["least", "most"].some((name) => this.form.elements[name].value !== "");
      const labelled = this.form.elements.labelled.checked;
      const poles = POLES.map((pole) => (chosen.pole.has(pole) ? 0 : POLE));
      this.refused = new Uint8Array(index.size);
      for (const { run, data, first, size } of index.parts) {
        const model = chosen.model.has(run) ? 0 : MODEL;
        const writers = data.writers.map((name) => (chosen.writer.has(name) ? 0 : WRITER));
        const kinds = data.kinds.map((name) => (chosen.kind.has(name) ? 0 : KIND));
        const unlabelled = data.states.map((state) => (labelled && state !== "" ? LABELLED : 0));
        for (let at = 0; at < size; at += 1) {
          const item = at >> 1, layer = data.layers[item], kind = data.kinds_of[item], score = data.scores[at];
          let refused = model | poles[at & 1] | kinds[kind] | unlabelled[data.states_of[at]];
          // Controls were written by nothing.
          if (data.kinds[kind] === this.weights) refused |= writers[data.writers_of[item]];
          if (layer < low || layer > high) refused |= LAYER;
          if (bounded && (score === null || score < least || score > most)) refused |= SCORE;
          this.refused[first + at] = refused;
        }
      }
    }

    passes(row) {
      return this.refused[row] === 0;
    }

    // Writes beside each facet how many of the found rows the others leave it; says how many rows
    // were found in all, and how many of them would be there but for "labelled only".
    count(found) {
      const sums = new Map([...this.counts.keys()].map((key) => [key, 0]));
      let all = 0, unlabelled = 0;
      for (const { run, data, first, size } of this.index.parts) {
        const models = `model ${run}`, writers = data.writers.map((name) => `writer ${name}`), kinds = data.kinds.map((name) => `kind ${name}`);
        const isWeights = data.kinds.map((name) => name === this.weights);
        const tally = { writers: new Int32Array(writers.length), kinds: new Int32Array(kinds.length), poles: [0, 0], model: 0, scored: 0, labelled: 0 };
        for (let at = 0; at < size; at += 1) {
          const refused = this.refused[first + at];
          if (found && !found[first + at]) continue;
          all += 1;
          if (refused & (refused - 1)) continue;
          const item = at >> 1, kind = data.kinds_of[item];
          if (!(refused & ~MODEL)) tally.model += 1;
          if (!(refused & ~POLE)) tally.poles[at & 1] += 1;
          if (!(refused & ~KIND)) tally.kinds[kind] += 1;
          if (!(refused & ~WRITER) && isWeights[kind]) tally.writers[data.writers_of[item]] += 1;
          if (!(refused & ~SCORE) && data.scores[at] !== null) tally.scored += 1;
          if (!(refused & ~LABELLED)) {
            if (data.states[data.states_of[at]] === "") tally.labelled += 1;
            else if (refused) unlabelled += 1;
          }
        }
        const put = (key, n) => sums.set(key, (sums.get(key) ?? 0) + n);
        put(models, tally.model);
        POLES.forEach((pole, at) => put(`pole ${pole}`, tally.poles[at]));
        writers.forEach((key, at) => put(key, tally.writers[at]));
        kinds.forEach((key, at) => put(key, tally.kinds[at]));
        put("scored", tally.scored);
        put("labelled", tally.labelled);
      }
      for (const [key, place] of this.counts) place.textContent = count(sums.get(key));
      return { all, unlabelled };
    }

    // Lets every row through.
    open() {
      for (const input of SETS.flatMap((name) => this.inputs[name])) input.checked = true;
      for (const name of Object.keys(BOUNDS)) this.form.elements[name].value = "";
      this.form.elements.labelled.checked = false;
    }

    // What differs from the form's beginning goes into the address, so that a search can be shared.
    remember(address) {
      if (this.sort === "score") address.set("sort", "score");
      for (const name of SETS) {
        if (this.inputs[name].every((input) => input.checked === input.defaultChecked)) continue;
        const chosen = this.chosen(name);
        for (const value of chosen) address.append(name, value);
        if (!chosen.size) address.append(name, "");
      }
      for (const name of Object.keys(BOUNDS)) {
        const { value } = this.form.elements[name];
        if (BOUNDS[name].test(value)) address.set(name, value);
      }
      if (!this.form.elements.labelled.checked) address.set("labelled", "0");
    }

    restore(address) {
      if (address.get("sort") === "score") this.form.elements.sort.value = "score";
      for (const name of SETS) {
        if (!address.has(name)) continue;
        const values = new Set(address.getAll(name));
        for (const input of this.inputs[name]) input.checked = values.has(input.value);
      }
      for (const [name, form] of Object.entries(BOUNDS)) {
        const value = address.get(name) ?? "";
        this.form.elements[name].value = form.test(value) ? value : "";
      }
      this.form.elements.labelled.checked = address.get("labelled") !== "0";
    }
  }

  Object.assign(globalThis.WA, { Facets });
}
