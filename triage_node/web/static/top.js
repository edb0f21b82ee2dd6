// The head of every page: whose list this is, how much is on it, and whether it is current.

import { clock, el, write } from "./words.js";

const CONNECTION_WORDS = {
  live: "live",
  connecting: "connecting …",
  lost: "reconnecting …",
  trouble: "node in trouble",
};
// A page that has just become visible again is not called out of date before it had a chance to ask.
const GRACE_MS = 1_500;

export class Top {
  constructor(stream, listing) {
    this.stream = stream;
    this.name = document.getElementById("node-name");
    this.troubles = document.getElementById("troubles");
    this.connection = document.getElementById("connection");
    this.banner = document.getElementById("banner");
    this.lostAt = Date.now();
    stream.addEventListener("state", () => this.#connection());
    listing.addEventListener("list", () => this.#status(listing.status));
    setInterval(() => this.#connection(), 500);
  }

  /** What an administrator should know at every moment; nothing while all is well. */
  #status(status) {
    write(this.name, status.ae_title);
    this.name.title = `triage-node ${status.version}`;
    const undelivered = Object.values(status.deliveries).reduce(
      (sum, states) => sum + (states.refused ?? 0) + (states["given up"] ?? 0),
      0,
    );
    const unreached = status.destinations.filter((destination) => destination.state === "not reached");
    const entries = [
      ["being analysed", status.jobs.running ?? 0, "", ""],
      ["not delivered", undelivered, "results that a destination refused or never took: see the study's page", "bad"],
      ["not reached", unreached.length, unreached.map(({ name, since, words }) => `${name} since ${clock(since)}: ${words}`).join("\n"), "bad"],
    ];
    this.troubles.replaceChildren(...entries.filter(([, number]) => number > 0).map(([word, number, title, kind]) =>
      el("div", { title: title || null, class: kind || null }, el("dd", {}, String(number)), el("dt", {}, word))));
  }

  #connection() {
    const { state, words, updatedAt } = this.stream;
    if (state === "live") this.lostAt = null;
    else this.lostAt ??= Date.now();
    this.connection.dataset.state = state;
    const since = updatedAt === null ? "" : ` · updated ${clock(updatedAt)}`;
    write(this.connection.querySelector("span"), CONNECTION_WORDS[state] + since);
    const late = this.lostAt !== null && Date.now() - this.lostAt > GRACE_MS;
    this.banner.hidden = !late;
    document.body.classList.toggle("out-of-date", late);
    if (!late) return;
    const age = updatedAt === null
      ? "No list has arrived from the node yet."
      : `This list may be out of date since ${clock(updatedAt)}.`;
    const why = state === "trouble" ? `The node says: ${words}.` : "The connection to the node is lost; trying again.";
    write(this.banner, `${age} ${why}`);
  }
}
