// Start here: which page this is, and the keys.

import { Access } from "./access.js";
import { Claims } from "./claims.js";
import { Filters } from "./filters.js";
import { Listing } from "./listing.js";
import { Who } from "./node.js";
import { Stream } from "./stream.js";
import { StudyPage } from "./study.js";
import { Top } from "./top.js";
import { Worklist } from "./worklist.js";
import { el } from "./words.js";

const dialogs = ["keys", "rules", "force"].map((id) => document.getElementById(id));
const [keys, rules] = dialogs;
const stream = new Stream("/events");
const listing = new Listing(stream);
const claims = new Claims(new Who());
new Top(stream, listing);
new Access(stream);

const help = () => keys.showModal();
const found = /^\/studies\/([^/]+)$/.exec(location.pathname);
if (found) {
  document.body.classList.add("one-study");
  const study = new StudyPage(listing, claims, decodeURIComponent(found[1]));
  const { viewer } = study;
  onKeys({
    Escape: () => study.back(),
    j: () => viewer.move(1),
    ArrowDown: () => viewer.move(1),
    k: () => viewer.move(-1),
    ArrowUp: () => viewer.move(-1),
    PageDown: () => viewer.move(10),
    PageUp: () => viewer.move(-10),
    Home: () => viewer.move(-Infinity),
    End: () => viewer.move(Infinity),
    w: () => viewer.goToWorst(),
    1: () => viewer.preset(1),
    2: () => viewer.preset(2),
    3: () => viewer.preset(3),
    o: () => viewer.toggle("lesions"),
    l: () => viewer.toggle("lungs"),
    "+": () => viewer.zoom(1.25),
    "-": () => viewer.zoom(0.8),
    0: () => viewer.zoom(0),
    c: () => claims.key("claim", study.item),
    m: () => claims.key("finish", study.item),
    r: () => claims.key("release", study.item),
    n: () => claims.next(),
    "?": help,
  });
} else {
  const filters = new Filters(stream, claims.who);
  const worklist = new Worklist(stream, listing, filters, claims);
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
    c: () => claims.key("claim", worklist.study),
    m: () => claims.key("finish", worklist.study),
    r: () => claims.key("release", worklist.study),
    n: () => claims.next(),
    1: () => filters.toggle("HIGH"),
    2: () => filters.toggle("MEDIUM"),
    3: () => filters.toggle("LOW"),
    x: () => filters.clear(),
    "/": () => filters.focus(),
    "?": help,
  });
  filters.input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      filters.clear();
      worklist.leaveFilter();
    } else if (event.key === "Enter" || event.key === "ArrowDown") worklist.move(0);
    else return;
    event.preventDefault();
  });
  document.getElementById("rules-open").addEventListener("click", () => rules.showModal());
}
for (const button of document.querySelectorAll(".keys-open")) button.addEventListener("click", help);

listing.addEventListener("list", () => {
  if (!found) document.title = `${listing.order.length} on the list · ${listing.status.ae_title}`;
  document.getElementById("rules-list").replaceChildren(
    ...listing.status.strategy_words.map((sentence) => el("li", {}, sentence)),
  );
});

/** Keys without modifiers, outside of text fields, dialogs and whatever takes Enter by itself. */
function onKeys(actions) {
  document.addEventListener("keydown", (event) => {
    const action = actions[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (dialogs.some((dialog) => dialog.open) || event.target.closest("input, textarea, select")) return;
    if (event.key === "Enter" && event.target.closest("a, button")) return;
    event.preventDefault();
    action();
  });
}
