// What every page does with script: theme, search boxes, keys, token values. Pages read without it.
"use strict";
{
  const page = document.documentElement;
  const find = (selector, within = document) => within.querySelector(selector);
  const typing = (element) => element.closest?.("input, textarea, select, [contenteditable]");

  // Theme: auto, light, dark, and round again.
  const button = find("[data-theme-switch]");
  const themes = ["auto", "light", "dark"];
  const showTheme = () => { button.textContent = `Theme: ${page.dataset.theme ?? "auto"}`; };
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(page.dataset.theme ?? "auto") + 1) % themes.length];
    if (next === "auto") delete page.dataset.theme;
    else page.dataset.theme = next;
    try {
      localStorage.setItem("wa-theme", next);
    } catch {
      // Not remembered, but shown.
    }
    showTheme();
  });
  showTheme();

  // The policy of the pages lets no form be sent; a search is an address like any other.
  for (const form of document.querySelectorAll("form[data-search]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const words = find("input", form).value.trim();
      location.href = form.dataset.search + (words ? `?q=${encodeURIComponent(words)}` : "");
    });
  }

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
    const target = document.getElementById(anchor());
    const role = target && target.dataset.role && find(`#role-${target.dataset.role}`);
    if (role && getComputedStyle(target).display === "none") {
      role.checked = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();

  const copy = find("[data-copy]");
  copy?.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Copy it from the address bar";
    }
    setTimeout(() => { copy.textContent = "Copy link"; }, 2000);
  });

  // Token values: one tooltip, filled where the pointer or the keyboard is.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  let marked = null;

  // Two characters a coloured token, 4,096 levels over [-1, 1]; exact ones of strong tokens and of
  // characters split over several tokens stand in the title, which would cover our tooltip.
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const unpack = (text) => {
    const values = text.dataset.v;
    [...text.querySelectorAll("i")].forEach((token, at) => {
      const level = 64 * digits.indexOf(values[2 * at]) + digits.indexOf(values[2 * at + 1]);
      token.dataset.v = token.title || String(2 * level / 4095 - 1);
      token.removeAttribute("title");
    });
  };
  const valueOf = (token) => {
    if (!token.dataset.v) unpack(token.closest(".t"));
    return token.dataset.v;
  };
  const written = (value) => value.split("/").map((one) => {
    const number = Number(one);
    return `${number < 0 ? "\u2212" : number > 0 ? "+" : ""}${Math.abs(number).toFixed(3)}`;
  }).join(", ");
  const line = (chart, value) => {
    const { low, high } = chart.dataset;
    const x = 560 * Math.min(1, Math.max(0, (value - low) / (high - low)));
    find(".at", chart).setAttribute("transform", `translate(${x + 9} 0)`);
  };

  const show = (token) => {
    if (token === marked) return;
    hide();
    marked = token;
    token.classList.add("here");
    const values = valueOf(token);
    const role = token.closest("[data-r]")?.dataset.r ?? token.closest("[data-role]").dataset.role;
    const head = document.createElement("p");
    const text = document.createElement("code");
    text.className = "token";
    text.textContent = token.textContent.replaceAll("\n", "\u21b5").replace(/^ | $/g, "\u2423");
    const number = document.createElement("b");
    number.textContent = written(values);
    head.append(text, role, number);
    tip.replaceChildren(head);
    const chart = find(`[data-of="${role}"] svg`);
    if (chart) {
      line(chart, Number(values.split("/")[0]));
      tip.append(chart.cloneNode(true));
    }
    tip.hidden = false;
    const box = token.getBoundingClientRect();
    const wide = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(box.left, wide - tip.offsetWidth - 8));
    const below = box.bottom + tip.offsetHeight + 14 < innerHeight || box.top < tip.offsetHeight + 14;
    tip.style.setProperty("left", `${left + scrollX}px`);
    tip.style.setProperty("top", `${(below ? box.bottom + 8 : box.top - tip.offsetHeight - 8) + scrollY}px`);
  };
  const hide = () => {
    marked?.classList.remove("here");
    marked = null;
    tip.hidden = true;
    for (const mark of document.querySelectorAll(".hist .at")) mark.removeAttribute("transform");
  };

  const poles = find(".poles");
  if (poles) {
    document.body.append(tip);
    poles.addEventListener("pointerover", (event) => {
      const token = event.target.closest(".t i");
      if (token) show(token);
      else hide();
    });
    poles.addEventListener("pointerleave", hide);
    for (const text of poles.querySelectorAll(".t")) {
      text.tabIndex = 0;
      text.setAttribute("role", "group");
      text.setAttribute("aria-label", "Text of the example; arrow keys read its values");
    }
    poles.addEventListener("focusin", (event) => {
      const peak = event.target.matches(".t") && find("i.k", event.target);
      if (peak && event.target.matches(":focus-visible")) show(peak);
    });
    poles.addEventListener("focusout", hide);
  }
  const readable = (text) => [...text.querySelectorAll("i")].filter((token) => token.getClientRects().length);

  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") hide();
    if (typing(event.target)) return;
    const box = find("input[type=search]");
    if (event.key === "/" && box) {
      event.preventDefault();
      box.focus();
      box.select();
      return;
    }
    const back = event.key === "ArrowLeft" || event.key === "k";
    if (!back && event.key !== "ArrowRight" && event.key !== "j") return;
    if (event.shiftKey) return;
    if (event.key.startsWith("Arrow")) {
      if (event.target.matches?.(".t")) {
        const tokens = readable(event.target);
        const next = tokens[tokens.indexOf(marked) + (back ? -1 : 1)];
        if (next) show(next);
        event.preventDefault();
        return;
      }
      // A region that scrolls sideways keeps its arrows.
      if (event.target.closest?.(".wide")) return;
    }
    const link = find(back ? "a[rel=prev]" : "a[rel=next]");
    if (link) location.href = link.href;
  });
}
