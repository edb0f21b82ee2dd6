// Claiming studies for reading: what may be done with one, the buttons for it, and what the node answers.

import { ask } from "./node.js";
import { STATES, clock, el, nameOf, write } from "./words.js";

const OPEN = ["waiting", "judged", "not_analysed"];
const SAID_MS = 8_000;

const ACTIONS = {
  claim: { key: "c", words: "Claim", title: "Others see that you are reading it", done: "claimed" },
  finish: { key: "m", words: "Mark read", title: "You have read it: it leaves the queue", done: "marked as read" },
  release: { key: "r", words: "Release", title: "Back into the queue, in its place", done: "back in the queue" },
};

/** Which actions `study` asks for, the likeliest first. */
export function actionsFor(study, name) {
  if (OPEN.includes(study.state)) return ["claim", "finish"];
  if (study.state === "reading") return study.performer === name ? ["finish", "release"] : ["release"];
  return ["release"];
}

/** Where a study stands: "being read by anna since 10:15:02"; `name` is that of who looks. */
export function standing(study, name) {
  const words = STATES[study.state] ?? study.state;
  if (study.state !== "reading" || !study.performer) return words;
  const since = study.claimed_at ? ` since ${clock(study.claimed_at)}` : "";
  return `${words} by ${study.performer === name ? "you" : study.performer}${since}`;
}

export class Claims {
  constructor(who) {
    this.who = who;
    this.said = document.getElementById("said");
    this.dialog = document.getElementById("force");
    this.question = document.getElementById("force-question");
    document.getElementById("next").addEventListener("click", () => this.next());
  }

  /** Buttons for what may be done with `study`. */
  buttons(study) {
    return el("p", { class: "actions" }, ...actionsFor(study, this.who.name).map((name, index) => {
      const action = ACTIONS[name];
      const words = name === "release" && !["reading"].includes(study.state) ? "Put back" : action.words;
      const button = el("button", { type: "button", class: index === 0 ? "first" : null, "data-action": name, title: action.title }, `${words} `, el("kbd", {}, action.key));
      button.addEventListener("click", () => this.act(name, study));
      return button;
    }));
  }

  /** Do what a key stands for, if `study` asks for it. */
  key(name, study) {
    if (study && actionsFor(study, this.who.name).includes(name)) this.act(name, study);
  }

  async act(name, study, force = false) {
    const address = `/api/study/${encodeURIComponent(study.study_instance_uid)}/${name}`;
    const answer = await ask(address, { force });
    if (answer.ok) this.say(`${nameOf(study)} is ${ACTIONS[name].done}.`);
    else if (answer.body?.may_force && !force) this.#confirm(name, study, answer.body.error);
    else this.say(answer.words, { bad: true });
    return answer.ok;
  }

  /** Claim the first study of the triaged list that nobody reads, and open it. */
  async next() {
    const answer = await ask("/api/claims/next", {});
    if (answer.ok) location.assign(`/studies/${encodeURIComponent(answer.body.study_instance_uid)}`);
    else this.say(answer.words, { bad: true });
  }

  say(words, { bad = false } = {}) {
    this.said.classList.toggle("bad", bad);
    write(this.said, words);
    this.said.hidden = false;
    clearTimeout(this.quiet);
    this.quiet = setTimeout(() => { this.said.hidden = true; }, bad ? 2 * SAID_MS : SAID_MS);
  }

  #confirm(name, study, words) {
    write(this.question, `${nameOf(study)}: ${words}. ${ACTIONS[name].words} all the same?`);
    this.dialog.returnValue = "";
    this.dialog.showModal();
    this.dialog.addEventListener("close", () => this.dialog.returnValue === "yes" && this.act(name, study, true), { once: true });
  }
}
