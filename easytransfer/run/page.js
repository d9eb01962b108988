"use strict";
// A reader without scripts misses these buttons only: the code can be marked by hand.
for (const pre of document.querySelectorAll("pre")) {
  const box = document.createElement("div"), button = document.createElement("button");
  box.className = "code";
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-live", "polite");
  pre.replaceWith(box);
  box.append(pre, button);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(pre.textContent.trimEnd());
      button.textContent = "Copied";
    } catch {
      // Pages of foreign hosts without encryption have no clipboard.
      getSelection().selectAllChildren(pre);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
// What scrolls sideways can be reached by the keyboard, and nothing else is a stop on the way.
function reach() {
  for (const box of document.querySelectorAll(".scroll")) {
    const heading = box.closest("section")?.querySelector("h2")?.textContent ?? document.title;
    const wide = box.scrollWidth > box.clientWidth;
    for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", `Table: ${heading}`]])
      if (wide) box.setAttribute(name, value);
      else box.removeAttribute(name);
  }
}
addEventListener("resize", reach);
reach();
