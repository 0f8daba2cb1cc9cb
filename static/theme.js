// Runs before the first paint: the remembered theme, and the sign that scripts run.
"use strict";
{
  const page = document.documentElement;
  page.classList.add("js");
  try {
    const kept = localStorage.getItem("wa-theme");
    if (kept === "light" || kept === "dark") page.dataset.theme = kept;
  } catch {
    // Storage may be refused, from disk above all; then the system's theme holds.
  }
}
