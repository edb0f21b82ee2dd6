// Which studies of the list are shown: by state, by priority, overdue ones, one's own, and by words.

import { LEVEL_SIGNS } from "./marks.js";
import { STATES, el, isByDefault, studyDate, write } from "./words.js";

const KEPT = "filters"; // for as long as the browser's tab is open

/** Each chip shows studies of one kind; of one group any that is pressed, of several groups all. */
const CHIPS = [
  ...Object.entries(STATES).map(([state, words]) => ({
    name: state, group: "state", words: state === "waiting" ? "waiting" : words, always: !["reading", "read", "cancelled"].includes(state),
    shows: (study) => study.state === state,
  })),
  ...["HIGH", "MEDIUM", "LOW"].map((level) => ({
    name: level, group: "level", words: level, always: true, sign: level,
    shows: (study) => study.reading_priority === level && !isByDefault(study),
  })),
  { name: "overdue", group: "overdue", words: "overdue", always: false, shows: (study, filters) => filters.isOverdue(study) },
  { name: "mine", group: "mine", words: "read by me", always: false, shows: (study, filters) => filters.isMine(study) },
];

export class Filters extends EventTarget {
  /** Emits "filter" when other studies are to be shown; `who` knows the name of who looks at the page. */
  constructor(stream, who) {
    super();
    this.stream = stream;
    this.who = who;
    this.maximum_min = Infinity;
    this.pressed = new Set(JSON.parse(sessionStorage.getItem(KEPT) ?? "[]"));
    this.text = "";
    this.input = document.getElementById("filter");
    this.buttons = new Map();
    const groups = new Map();
    for (const chip of CHIPS) {
      const number = el("b");
      const sign = chip.sign ? el("i", { class: "sign", "data-level": chip.sign, "aria-hidden": "true" }, LEVEL_SIGNS[chip.sign]) : null;
      const button = el("button", { type: "button", class: "chip", "data-chip": chip.name, "aria-pressed": "false" }, sign, number, " ", chip.words);
      button.addEventListener("click", () => this.toggle(chip.name));
      this.buttons.set(chip.name, { button, number, chip });
      if (!groups.has(chip.group)) groups.set(chip.group, el("span", { class: "chips", role: "group" }));
      groups.get(chip.group).append(button);
    }
    this.all = el("button", { type: "button", class: "quiet", id: "filters-off", hidden: true }, "show all ", el("kbd", {}, "x"));
    this.all.addEventListener("click", () => this.clear());
    document.getElementById("chips").append(...groups.values(), this.all);
    this.input.addEventListener("input", () => {
      this.text = this.input.value.trim().toLowerCase();
      this.#changed();
    });
    this.#draw();
  }

  get active() {
    return this.pressed.size > 0 || this.text !== "";
  }

  isOverdue(study) {
    const open = ["waiting", "judged", "not_analysed"].includes(study.state);
    return open && study.arrived_at !== null && this.stream.now() - Date.parse(study.arrived_at) >= this.maximum_min * 60_000;
  }

  isMine(study) {
    return study.state === "reading" && study.performer === this.who.name;
  }

  /** Whether `study` is to be shown. */
  shows(study) {
    const groups = new Map();
    for (const name of this.pressed) {
      const { chip } = this.buttons.get(name) ?? {};
      if (chip) groups.set(chip.group, (groups.get(chip.group) ?? false) || chip.shows(study, this));
    }
    for (const shown of groups.values()) if (!shown) return false;
    return this.text === "" || this.text.split(/\s+/).every((word) => wordsOf(study).includes(word));
  }

  /** Put numbers on the chips; one without studies is hidden unless it says something by being there. */
  count(studies) {
    const numbers = new Map(CHIPS.map((chip) => [chip.name, 0]));
    for (const study of studies) {
      for (const chip of CHIPS) if (chip.shows(study, this)) numbers.set(chip.name, numbers.get(chip.name) + 1);
    }
    for (const [name, { button, number, chip }] of this.buttons) {
      write(number, numbers.get(name).toLocaleString("en-GB"));
      button.hidden = !chip.always && numbers.get(name) === 0 && !this.pressed.has(name);
    }
  }

  toggle(name) {
    if (!this.pressed.delete(name)) this.pressed.add(name);
    this.#changed();
  }

  clear() {
    this.pressed.clear();
    this.text = this.input.value = "";
    this.#changed();
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  #changed() {
    sessionStorage.setItem(KEPT, JSON.stringify([...this.pressed]));
    this.#draw();
    this.dispatchEvent(new Event("filter"));
  }

  #draw() {
    for (const [name, { button }] of this.buttons) button.setAttribute("aria-pressed", String(this.pressed.has(name)));
    this.all.hidden = !this.active;
  }
}

const words = new WeakMap(); // of each study, put together when it is first looked for

function wordsOf(study) {
  if (!words.has(study)) {
    words.set(study, [
      study.accession_number, study.description, study.study_date, studyDate(study.study_date), study.study_instance_uid,
      study.reading_priority, study.order_priority ?? "", study.state.replace("_", " "), STATES[study.state] ?? "", study.performer ?? "",
      study.ct_grade ?? "", ...study.reasons,
    ].join("\n").toLowerCase());
  }
  return words.get(study);
}
