// Puts scripts into a page, and what shards hold of pages. From disk nothing can be fetched; the
// policy in here is the only one that pages allow, and it knows what a build of this site writes.
"use strict";
globalThis.WA ??= {};
{
  const scripts = [
    /^data\/(?:search|tokens|triage)\d*-[a-z0-9._-]+\.js$/,
    /^m\/[a-z0-9._-]+\/(?:d\/[a-z0-9._-]+|s\/\d+)\.js$/,
    /^(?:s\/\d+|names|texts)\.js$/,
    /^\.\.\/\.\.\/static\/(?:direction|charts|tip|examples|copy)\.js$/,
  ];
  const written = (address) => {
    if (!scripts.some((known) => known.test(address))) throw new TypeError(`not a script of this site: ${address}`);
    return address;
  };
  // What the main part of a direction's page never holds; the page's own policy stops it, too.
  const active = /<(?:script|style|iframe|object|embed|base|link|meta|form)\b/i;
  const inert = (html) => {
    if (active.test(html)) throw new TypeError("not the main part of a page of this site");
    return html;
  };
  const rules = { createScriptURL: written, createHTML: inert };
  const policy = globalThis.trustedTypes?.createPolicy("wa", rules) ?? rules;

  // A script element, to be appended; scripts run in the order in which they were asked for.
  WA.script = (address) => {
    const script = document.createElement("script");
    script.src = policy.createScriptURL(address);
    script.async = false;
    return script;
  };
  WA.load = (address) => new Promise((done, failed) => {
    const script = WA.script(address);
    script.addEventListener("load", () => { script.remove(); done(); });
    script.addEventListener("error", () => { script.remove(); failed(new Error(`${address} could not be loaded`)); });
    document.head.append(script);
  });
  // Where a direction of a model is shown; data are those of its search.
  WA.addressOf = (run, name, data) => `m/${run}/${data.shard ? `direction.html?d=${name}` : `${name}.html`}`;
  WA.html = (text) => policy.createHTML(text);
}
