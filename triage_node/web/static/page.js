// Start here: which page this is, and the keys.

import { Access } from "./access.js";
import { Stream } from "./stream.js";
import { StudyPage } from "./study.js";
import { Top } from "./top.js";
import { Worklist } from "./worklist.js";
import { el } from "./words.js";

const keys = document.getElementById("keys");
const rules = document.getElementById("rules");
const stream = new Stream("/events");
new Top(stream);
new Access(stream);

const found = /^\/studies\/([^/]+)$/.exec(location.pathname);
if (found) {
  const study = new StudyPage(stream, decodeURIComponent(found[1]));
  onKeys({ Escape: () => study.back(), "?": () => keys.showModal() });
} else {
  const worklist = new Worklist(stream);
  onKeys({
    j: () => worklist.move(1),
    ArrowDown: () => worklist.move(1),
    k: () => worklist.move(-1),
    ArrowUp: () => worklist.move(-1),
    PageDown: () => worklist.move(worklist.screenful),
    PageUp: () => worklist.move(-worklist.screenful),
    Home: () => worklist.move(-Infinity),
    End: () => worklist.move(Infinity),
    Enter: () => worklist.open(),
    t: () => worklist.toggleOrder(),
    "/": () => worklist.focusFilter(),
    "?": () => keys.showModal(),
  });
  const filter = document.getElementById("filter");
  filter.addEventListener("keydown", (event) => {
    if (event.key === "Escape") worklist.clearFilter();
    else if (event.key === "Enter" || event.key === "ArrowDown") worklist.move(0);
    else return;
    event.preventDefault();
  });
  document.getElementById("keys-open").addEventListener("click", () => keys.showModal());
  document.getElementById("rules-open").addEventListener("click", () => rules.showModal());
}

stream.addEventListener("list", ({ detail }) => {
  if (!found) document.title = `${detail.studies.length} on the list · ${detail.status.ae_title}`;
  document.getElementById("rules-list").replaceChildren(
    ...detail.status.strategy_words.map((sentence) => el("li", {}, sentence)),
  );
});

/** Keys without modifiers, outside of text fields, dialogs and whatever takes Enter by itself. */
function onKeys(actions) {
  document.addEventListener("keydown", (event) => {
    const action = actions[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (keys.open || rules.open || event.target.closest("input, textarea, select")) return;
    if (event.key === "Enter" && event.target.closest("a, button")) return;
    event.preventDefault();
    action();
  });
}
