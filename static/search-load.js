// Loads the scripts of models, which call WA.add or WA.tokens with their columns.
"use strict";
globalThis.WA ??= {};
{
  // How far loading is: models with all their scripts, and what could not be loaded, by title.
  class Loading {
    constructor(models, changed) {
      this.models = models;
      this.changed = changed;
      this.open = new Map(models.map((model) => [model.name, model.scripts.length]));
      this.given = new Set();
      this.failed = [];
    }

    get whole() {
      return [...this.open.values()].filter((left) => left === 0).length;
    }

    get done() {
      return this.whole === this.models.length;
    }

    // To be called by what a script calls: one that was cut off loads, but says nothing.
    arrived() {
      this.given.add(document.currentScript);
    }

    start() {
      for (const model of this.models) {
        model.scripts.forEach((address, at) => {
          const part = model.scripts.length > 1 ? `${model.title}, part ${at + 1} of ${model.scripts.length}` : model.title;
          const script = WA.script(address);
          const over = () => {
            if (!this.given.has(script)) this.failed.push(part);
            this.open.set(model.name, this.open.get(model.name) - 1);
            this.changed();
          };
          script.addEventListener("load", over);
          script.addEventListener("error", over);
          document.head.append(script);
        });
      }
    }

    // What a reader has to know of it, in parts of a line; nothing when all is there.
    said() {
      const parts = [];
      if (!this.done) parts.push(`searching ${this.whole} of ${this.models.length} models`);
      if (this.failed.length) parts.push(`could not load: ${this.failed.join("; ")}`);
      return parts;
    }
  }

  // A count with its thousands apart, as in "12 345".
  const count = (n) => String(n).replace(/\B(?=(?:\d{3})+$)/g, "\u00a0");

  // The models that the inputs of a form name.
  const modelsOf = (inputs) => inputs.map((input) => ({
    name: input.value,
    title: input.closest("label").querySelector("bdi").textContent,
    scripts: input.dataset.scripts.split(" "),
    asked: input.checked,
  }));

  // An element with its properties and what is in it.
  const made = (tag, properties = {}, ...content) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...content);
    return element;
  };

  Object.assign(globalThis.WA, { Loading, count, made, modelsOf });
}
