// What one does with a direction's examples: token values, whose activations are shown, the address.
"use strict";
{
  const { state, signed, valueOf, ROLES } = WA;
  const find = (selector, within = document) => within.querySelector(selector);
  const poles = find(".poles");

  // Of tuned and base the colours mean the same; a difference is coloured around zero.
  WA.prepare = ({ header, tuned, base }) => {
    const own = new WA.Scale(...header.scale);
    let most = 0;
    if (base) for (let at = 0; at < tuned.length; at += 1) most = Math.max(most, Math.abs(tuned[at] - base[at]));
    state.scales = { tuned: own, base: own, difference: new WA.Scale(-most, 0, most) };
    restore();
  };
  WA.filled = () => reveal();

  const legend = () => {
    const scale = state.scales[state.show];
    for (const cell of document.querySelectorAll(".ramp b")) {
      const name = cell.className;
      const step = name === "z" ? 0 : (name[0] === "p" ? 1 : -1) * Number(name[1]);
      if (cell.textContent) cell.textContent = signed(scale.valueAt(step), 2);
    }
    const note = find("[data-meaning]");
    note.hidden = state.show !== "tuned";
    const other = find("[data-other]");
    if (other) {
      other.hidden = state.show === "tuned";
      other.textContent = state.show === "base"
        ? "The base\u2019s activations at the same tokens, in the colours of the tuned model\u2019s."
        : `Tuned minus base at the same tokens: none near 0, full orange at ${signed(scale.high)}, full blue, dotted, at ${signed(scale.low)}.`;
    }
  };

  // What one looks at goes into the address, so that it can be shared.
  const asked = () => new URLSearchParams(location.search);
  const restore = () => {
    const address = asked();
    const pick = (name, value) => {
      const input = [...document.querySelectorAll(`input[name=${name}]`)].find((one) => one.id === `${name}-${value}`);
      if (input) input.checked = true;
    };
    pick("role", address.get("role"));
    pick("show", address.get("show"));
    state.show = find("input[name=show]:checked")?.value ?? "tuned";
    if (state.show !== "tuned") legend();
  };
  const remember = () => {
    const address = asked();
    const put = (name, value, first) => (value === first ? address.delete(name) : address.set(name, value));
    const roles = [...document.querySelectorAll("input[name=role]")].map((input) => input.id.slice(5));
    if (roles.length) put("role", find("input[name=role]:checked").id.slice(5), roles[0]);
    put("show", state.show, "tuned");
    const text = address.toString();
    history.replaceState(null, "", (text ? `?${text}` : location.pathname) + location.hash);
  };
  find(".tools").addEventListener("change", (event) => {
    if (event.target.name === "show") {
      state.show = event.target.value;
      hide();
      for (const item of state.drawn) WA.draw(item);
      legend();
    }
    remember();
  });

  // Permalinks to an example of a role that is not shown at first.
  const anchor = () => {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch {
      // A stray percent sign, as in #100%, names no place.
      return "";
    }
  };
  const reveal = () => {
    const name = anchor();
    const target = name ? document.getElementById(name) : null;
    if (!target?.matches(".example")) return;
    const role = find(`#role-${target.dataset.role}`);
    if (role && getComputedStyle(target).display === "none") role.checked = true;
    target.classList.add("target");
    target.scrollIntoView();
  };
  addEventListener("hashchange", () => {
    for (const old of document.querySelectorAll(".example.target")) old.classList.remove("target");
    reveal();
  });

  // Filled where the pointer or the keyboard is.
  const tip = new WA.Tip("status");
  let marked = null;

  const line = (chart, value) => {
    const { low, high } = chart.dataset;
    const x = 560 * Math.min(1, Math.max(0, (value - low) / (high - low)));
    find(".at", chart).setAttribute("transform", `translate(${x + 9} 0)`);
  };
  // Stored in 255 steps; a third decimal is shown only where it means something.
  const digits = () => {
    const [low, high] = state.page.header.span;
    return high - low < 0.5 ? 3 : 2;
  };
  const row = (name, values) => {
    const line = document.createElement("p");
    const number = document.createElement("b");
    number.textContent = values.map((value) => signed(value, digits())).join(", ");
    line.append(name, number);
    return line;
  };

  const show = (token) => {
    if (token === marked) return;
    hide();
    const held = state.held.get(token);
    if (!held) return;
    marked = token;
    token.classList.add("here");
    const { item, piece } = held;
    const tokens = Array.from({ length: piece.tokens }, (_, at) => piece.first + at);
    const role = ROLES[item.roles ? item.roles[piece.first] : item.role];
    const text = document.createElement("code");
    text.className = "token";
    text.textContent = token.textContent.replaceAll("\n", "\u21b5").replace(/^ | $/g, "\u2423");
    const head = document.createElement("p");
    head.append(text, role);
    const shows = item.base ? ["tuned", "base", "difference"] : ["tuned"];
    const lines = shows.map((name) => row(item.base ? name : "activation", tokens.map((at) => valueOf(item, at, name))));
    const chart = find(`[data-of="${role}"] svg`);
    if (chart) {
      line(chart, item.tuned[piece.first]);
      lines.push(chart.cloneNode(true));
    }
    tip.show(token, head, ...lines);
  };
  const hide = () => {
    marked?.classList.remove("here");
    marked = null;
    tip.hide();
    for (const mark of document.querySelectorAll(".hist .at")) mark.removeAttribute("transform");
  };

  for (const place of [poles, find("[data-between]")].filter(Boolean)) {
    place.addEventListener("pointerover", (event) => {
      const token = event.target.closest(".t i");
      if (token) show(token);
      else hide();
    });
    place.addEventListener("pointerleave", hide);
    place.addEventListener("focusin", (event) => {
      const peak = event.target.matches(".t") && find("i.k", event.target);
      if (peak && event.target.matches(":focus-visible")) show(peak);
    });
    place.addEventListener("focusout", hide);
  }
  // Arrows read a text's tokens, one after the other; elsewhere they lead to the next direction.
  addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.key === "Escape") hide();
    if (!event.target.matches?.(".t")) return;
    const back = event.key === "ArrowLeft";
    if (!back && event.key !== "ArrowRight") return;
    event.preventDefault();
    const tokens = [...event.target.querySelectorAll("i")].filter((token) => state.held.has(token));
    const next = tokens[tokens.indexOf(marked) + (back ? -1 : 1)];
    if (next) show(next);
  }, true);
}
