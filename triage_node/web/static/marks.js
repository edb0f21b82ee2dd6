// Signs drawn for a study: priority, movement, lungs. Each says the same by shape, by colour and in words.

import { el, isByDefault, isJudged, percent, places, write } from "./words.js";

export const LEVEL_SIGNS = { HIGH: "▲", MEDIUM: "◆", LOW: "▬" };

export class PriorityMark {
  constructor() {
    this.word = el("b");
    this.note = el("small");
    this.element = el("span", { class: "mark" }, el("i", { "aria-hidden": "true" }), el("span", {}, this.word, this.note));
  }

  update(study) {
    // An unjudged study is MEDIUM because nothing is known of it: an open sign, not a finding.
    const byDefault = isByDefault(study);
    this.element.dataset.level = study.reading_priority;
    this.element.toggleAttribute("data-default", byDefault);
    write(this.word, study.reading_priority);
    write(this.note, study.order_priority ? `ordered ${study.order_priority}` : byDefault ? "by default" : "");
  }
}

export class MovementMark {
  constructor() {
    this.arrow = el("i", { "aria-hidden": "true" });
    this.number = el("span");
    this.words = el("span", { class: "unseen" });
    this.element = el("span", { class: "movement" }, this.arrow, this.number, this.words);
  }

  update(study) {
    const forward = study.arrival_rank - study.rank;
    this.element.dataset.direction = forward > 0 ? "forward" : forward < 0 ? "back" : "none";
    write(this.arrow, forward > 0 ? "▲" : forward < 0 ? "▼" : "");
    write(this.number, forward === 0 ? "" : String(Math.abs(forward)));
    const words = forward === 0 ? "in the place of its arrival" : movementWords(forward);
    write(this.words, words);
    this.element.title = words;
  }
}

function movementWords(forward) {
  return `${places(Math.abs(forward))} ${forward > 0 ? "further forward" : "further back"} than by arrival`;
}

/** The lungs as on a frontal image: the patient's right lung on the left of the screen, bars grow from the middle. */
export class LungBars {
  constructor() {
    this.right = new LungBar("R", "right");
    this.left = new LungBar("L", "left");
    this.none = el("span", { class: "none" });
    this.element = el("span", { class: "bars" }, this.right.element, this.left.element, this.none);
  }

  update(study) {
    const judged = isJudged(study);
    this.element.classList.toggle("empty-bars", !judged);
    write(this.none, judged ? "" : study.generation === null ? "not measured yet" : "not measured");
    this.right.update(study.affected_fraction_right, judged);
    this.left.update(study.affected_fraction_left, judged);
  }
}

class LungBar {
  constructor(letter, side) {
    this.side = side;
    this.fill = el("i");
    this.number = el("b");
    this.element = el(
      "span",
      { class: `bar ${side}` },
      el("em", { "aria-hidden": "true" }, letter),
      this.number,
      el("span", { class: "track", "aria-hidden": "true" }, this.fill),
    );
  }

  update(fraction, judged) {
    const missing = judged && fraction === null;
    this.element.hidden = !judged;
    this.element.classList.toggle("missing", missing);
    this.fill.style.width = `${Math.min(1, fraction ?? 0) * 100}%`;
    write(this.number, missing ? "not found" : percent(fraction));
    this.element.title = missing ? `no ${this.side} lung found` : `${this.side} lung: ${percent(fraction)} affected`;
  }
}
