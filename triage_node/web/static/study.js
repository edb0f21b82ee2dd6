// The page of one study: its slices, what was found, and everything the node did with it, kept current while it is open.

import { standing } from "./claims.js";
import { PriorityMark } from "./marks.js";
import { get } from "./node.js";
import { PlaceWords, numbers, overviewImage, warnings } from "./panel.js";
import { deliveryTable, eventsTable, messagesTable, seriesTable } from "./ledger.js";
import { Viewer } from "./viewer.js";
import { clock, el, nameOf, studyDate } from "./words.js";

const AT_MOST_EVERY_MS = 1_000;

export class StudyPage {
  constructor(listing, claims, uid) {
    this.listing = listing;
    this.claims = claims;
    this.uid = uid;
    this.element = document.getElementById("study");
    this.item = null; // the study on the list
    this.report = null; // and all that the node knows of it
    this.version = null;
    this.placeWords = new PlaceWords();
    this.waiting = false;
    this.parts = Object.fromEntries(["heading", "slices", "picture", "answer", "place", "ledger"].map((name) => [name, el("div", { class: `part ${name}` })]));
    this.viewer = new Viewer(this.parts.slices, uid);
    const { heading, slices, picture, answer, place, ledger } = this.parts;
    this.element.replaceChildren(
      el("div", { class: "study-split" }, slices, el("div", { class: "facts" }, heading, answer, place, picture)),
      ledger);
    this.element.hidden = false;
    listing.addEventListener("list", () => this.#arrived());
    claims.who.addEventListener("known", () => this.#draw());
    this.#ask();
  }

  back() {
    location.assign(`/#${encodeURIComponent(this.uid)}`);
  }

  #arrived() {
    this.item = this.listing.byUid.get(this.uid) ?? null;
    this.#draw();
    if (this.listing.version === this.version || this.waiting) return;
    this.version = this.listing.version;
    this.waiting = true;
    setTimeout(() => {
      this.waiting = false;
      this.#ask();
    }, this.report ? AT_MOST_EVERY_MS : 0);
  }

  async #ask() {
    const answer = await get(`/api/study/${encodeURIComponent(this.uid)}`);
    if (answer.status === 404) {
      this.element.replaceChildren(this.#backLink(), el("h2", {}, "Not found"), el("p", {}, answer.words));
    } else if (answer.ok) { // without a connection the banner says so already
      this.report = answer.body;
      this.#draw();
    }
  }

  #backLink() {
    return el("a", { class: "button", href: `/#${encodeURIComponent(this.uid)}` }, "← Worklist ", el("kbd", {}, "Esc"));
  }

  #draw() {
    const { report, item, parts } = this;
    if (report === null) return;
    const drawn = JSON.stringify([report, item, this.claims.who.name]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    document.title = `${nameOf(report)} · study`;
    const about = this.#asItem(report);
    const at = this.element.contains(document.activeElement) ? document.activeElement.dataset.action : null;
    parts.heading.replaceChildren(...this.#head(report));
    if (at) parts.heading.querySelector(`[data-action="${at}"], button, a`)?.focus();
    parts.answer.replaceChildren(...this.#answer(report, about));
    parts.place.replaceChildren(...this.#place());
    this.#picture(report, about);
    const ledger = JSON.stringify([report.series, report.objects, report.messages, report.events]);
    if (ledger !== this.ledger) {
      this.ledger = ledger;
      parts.ledger.replaceChildren(
        el("h3", {}, "Timeline"), eventsTable(report),
        el("h3", {}, "Results and their delivery"), deliveryTable(report),
        ...messagesTable(report),
        el("h3", {}, "Series"), seriesTable(report),
        ...howJudged(report),
        el("p", { class: "sub uid" }, `Study Instance UID ${report.study_instance_uid}`),
      );
    }
    // other images or another answer, other slices
    this.viewer.load(`${report.generation} ${report.series.map((series) => `${series.instances} ${series.state}`)}`);
  }

  #head(report) {
    const facts = [report.description || "no description", studyDate(report.study_date)];
    const name = el("div", { class: "panel-head" }, el("h2", { class: "dicom" }, nameOf(report)));
    const lines = [el("div", { class: "doing" }, this.#backLink()), name, el("p", { class: "dicom sub" }, facts.filter(Boolean).join(" · "))];
    if (this.item) {
      const mark = new PriorityMark();
      mark.update(this.item);
      name.append(mark.element);
      lines[0].append(this.claims.buttons(this.item));
      lines.push(el("p", { class: "standing", "data-state": this.item.state }, standing(this.item, this.claims.who.name), el("span", { class: "sub" }, ` · arrived ${clock(report.arrived_at)}`)));
    }
    return lines;
  }

  #answer(report, about) {
    const { measurements, not_analysed: refusal } = report;
    if (measurements === null) {
      if (refusal === null) return [el("h3", {}, "Not judged yet"), el("p", {}, "The study waits for its analysis.")];
      return [el("h3", {}, "Not analysed"), el("p", { class: "dicom" }, `${refusal.words} `, el("code", {}, refusal.reason))];
    }
    return [
      ...warnings(measurements.warnings),
      numbers(about, measurements, { parts: true }),
    ];
  }

  #place() {
    if (!this.item) return [];
    this.placeWords.ask(this.item, () => this.parts.place.replaceChildren(...this.#place()));
    return this.placeWords.elements(this.item);
  }

  #picture(report, about) {
    const old = this.parts.picture.querySelector("img.overview");
    if (report.measurements === null) {
      this.parts.picture.replaceChildren();
      return;
    }
    const image = overviewImage(about);
    if (old !== null && old.dataset.address === image.dataset.address) return;
    image.src = image.dataset.address;
    this.parts.picture.replaceChildren(image);
  }

  #asItem(report) {
    const found = report.measurements;
    return {
      study_instance_uid: report.study_instance_uid,
      accession_number: report.accession_number,
      generation: report.generation,
      affected_fraction_right: found?.right?.affected_fraction ?? null,
      affected_fraction_left: found?.left?.affected_fraction ?? null,
      consolidation_share: found?.consolidation_share ?? null,
      ct_grade: found?.ct_grade ?? null,
      ct_ss: found?.ct_ss ?? null,
      covid_probability: found?.covid_probability ?? null,
      method: found?.model.name ?? null,
    };
  }
}

/** By what and how fast the study was judged; those numbers that gave it its place are among the reasons for it. */
function howJudged({ measurements, judged_at: at, seconds, generation }) {
  if (measurements === null) return [];
  const { model } = measurements;
  return [
    el("h3", {}, "How it was judged"),
    el("p", {}, `${clock(at)}, in ${seconds.toFixed(1)} s, answer number ${generation} · ${model.name} ${model.version}${model.describes ? `: ${model.describes}` : ""}`),
    el("p", { class: "sub parameters" }, parameterWords(measurements)),
  ];
}

function parameterWords({ operating_point: point, consolidation_from_hu: split, model }) {
  return [
    `CT-1, CT-2 and CT-3 up to ${point.grades_up_to.map((cut) => `${+(100 * cut).toPrecision(3)}%`).join(", ")}`,
    split === null ? null : `consolidation from ${split} HU on`,
    ...model.parameters.map(([name, value]) => `${name}: ${value}`),
    `thresholds: ${point.source}`,
  ].filter(Boolean).join(" · ");
}
