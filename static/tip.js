// One tooltip for a page, put beside what it speaks of.
"use strict";
globalThis.WA ??= {};
{
  class Tip {
    constructor(role) {
      this.box = document.createElement("div");
      this.box.className = "tip";
      this.box.id = "tip";
      this.box.hidden = true;
      this.box.setAttribute("role", role);
      document.body.append(this.box);
    }

    // Shows these lines below what they speak of, above it where there is no room below.
    show(about, ...lines) {
      const { box } = this;
      box.replaceChildren(...lines);
      box.hidden = false;
      const own = about.getBoundingClientRect();
      const left = Math.max(8, Math.min(own.left, document.documentElement.clientWidth - box.offsetWidth - 8));
      const below = own.bottom + box.offsetHeight + 14 < innerHeight || own.top < box.offsetHeight + 14;
      box.style.setProperty("left", `${left + scrollX}px`);
      box.style.setProperty("top", `${(below ? own.bottom + 8 : own.top - box.offsetHeight - 8) + scrollY}px`);
    }

    hide() {
      this.box.hidden = true;
    }
  }

  Object.assign(globalThis.WA, { Tip });
}
