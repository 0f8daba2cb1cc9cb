// What every page does with script: theme, search boxes, keys. Pages read without it.
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

  const copy = find("button[data-copy]");
  copy?.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Copy it from the address bar";
    }
    setTimeout(() => { copy.textContent = "Copy link"; }, 2000);
  });

  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
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
      // A region that scrolls sideways keeps its arrows.
      if (event.target.closest?.(".wide")) return;
    }
    const link = find(back ? "a[rel=prev]" : "a[rel=next]");
    if (link) location.href = link.href;
  });
}
