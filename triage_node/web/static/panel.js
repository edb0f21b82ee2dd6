// The selected study beside the list: its overview large, its numbers, and the reasons for its place.

import { PriorityMark } from "./marks.js";
import { get } from "./node.js";
import { standing } from "./claims.js";
import {
  clock, el, isJudged, ml, mixWords, nameOf, overviewAddress, percent, probabilityWords, studyAddress, studyDate,
} from "./words.js";

const SETTLED_MS = 120; // while somebody runs through the list with j, neither picture nor volumes are asked for

export class Panel {
  constructor(element, claims) {
    this.element = element;
    this.claims = claims;
    this.place = new PlaceWords();
    this.shown = "";
    this.asked = null;
  }

  show(study) {
    const shown = study === null ? "" : JSON.stringify([study, this.claims.who.name]);
    if (shown === this.shown) return;
    const same = this.uid === study?.study_instance_uid && this.generation === study?.generation;
    this.shown = shown;
    this.uid = study?.study_instance_uid;
    this.generation = study?.generation;
    if (!same) this.report = null;
    this.#draw(study);
    if (study !== null) this.place.ask(study, () => this.#draw(this.study));
    clearTimeout(this.asked);
    if (study !== null && this.report === null) this.asked = setTimeout(() => this.#settled(study), SETTLED_MS);
  }

  #settled(study) {
    const image = this.element.querySelector("img.overview:not([src])");
    if (image !== null) image.src = image.dataset.address;
    this.#ask(study);
  }

  async #ask(study) {
    const uid = study.study_instance_uid;
    const answer = await get(`/api/study/${encodeURIComponent(uid)}`);
    if (!answer.ok || uid !== this.uid) return; // without a connection the banner says so already
    this.report = answer.body;
    this.#draw(this.study);
  }

  #draw(study) {
    this.study = study;
    if (study === null) {
      this.element.replaceChildren();
      return;
    }
    const priority = new PriorityMark();
    priority.update(study);
    const address = studyAddress(study.study_instance_uid);
    // keep the picture that is there: a new element would flicker
    const picture = this.#picture(study);
    const at = this.element.contains(document.activeElement) ? document.activeElement.dataset.action : null;
    this.element.replaceChildren(
      el("div", { class: "panel-head" },
        el("h2", { class: "dicom" }, nameOf(study)),
        priority.element,
      ),
      el("p", { class: "dicom sub" }, [study.description || "no description", studyDate(study.study_date)].filter(Boolean).join(" · ")),
      el("p", { class: "sub standing" }, `${standing(study, this.claims.who.name)} · arrived ${clock(study.arrived_at)}`),
      el("div", { class: "doing" },
        el("a", { class: "button", href: address }, "Open ", el("kbd", {}, "Enter")),
        this.claims.buttons(study)),
      picture,
      isJudged(study) ? numbers(study, this.report?.measurements ?? null) : "",
      ...warnings(this.report?.measurements?.warnings ?? []),
      ...this.place.elements(study),
    );
    if (at) (this.element.querySelector(`[data-action="${at}"]`) ?? this.element.querySelector("a.button")).focus();
  }

  #picture(study) {
    if (!study.has_overview) {
      const words = study.state === "not_analysed" ? "Not analysed: there is no overview image." : "Not judged yet: no overview image.";
      return el("p", { class: "no-picture" }, words);
    }
    const old = this.element.querySelector("img.overview");
    const image = overviewImage(study);
    return old !== null && old.dataset.address === image.dataset.address ? old : image;
  }
}

/** The overview of `study`; it is asked for once its `src` is set to its `data-address`. */
export function overviewImage(study) {
  const image = el("img", {
    class: "overview",
    alt: `Overview image of study ${nameOf(study)}: frontal projection with lesions in colour`,
    "data-address": overviewAddress(study.study_instance_uid, study.generation),
  });
  image.addEventListener("error", () => {
    image.replaceWith(el("p", { class: "no-picture" }, "The overview image cannot be shown: it is no longer on the node, or cannot be read."));
  });
  return image;
}

/**
 * The numbers of a judged study; `measured` adds volumes and what is said of the probability once they have come,
 * `parts` volumes and extents of the lesion's parts, for both lungs together, too.
 */
export function numbers(study, measured, { parts = false } = {}) {
  const sides = [["right", "right lung"], ["left", "left lung"], ...(parts ? [["both", "both lungs"]] : [])];
  const affected = {
    right: study.affected_fraction_right, left: study.affected_fraction_left, both: measured?.affected_fraction_both ?? null,
  };
  const cells = (words) => sides.map(([side]) => el("td", {}, ...(measured?.[side] ? [words(measured[side])].flat() : ["–"])));
  const row = (words, ...found) => el("tr", {}, el("th", { scope: "row" }, words), ...found);
  const part = (words, name) => row(words, ...cells((lung) => [el("span", {}, `${ml(lung[`${name}_ml`])} ·`), " ", el("span", {}, percent(lung[`${name}_fraction`]))]));
  return el("div", { class: "numbers" },
    el("table", { class: parts ? "parts" : null },
      el("thead", {}, el("tr", {}, el("td"), ...sides.map(([, words]) => el("th", { scope: "col" }, words)))),
      el("tbody", {},
        row("affected", ...sides.map(([side]) => el("td", { class: "large" }, affected[side] === null ? "not found" : percent(affected[side])))),
        row("lesion", ...cells((lung) => ml(lung.lesion_ml))),
        ...(parts ? [part("ground glass", "ground_glass"), part("consolidation", "consolidation")] : []),
        row("lung", ...cells((lung) => ml(lung.volume_ml))),
      )),
    el("dl", {},
      el("div", {}, el("dt", {}, "CT grade"), el("dd", {}, study.ct_grade)),
      el("div", {}, el("dt", {}, "CT-SS"), el("dd", {}, `${study.ct_ss} of 5`)),
      el("div", {}, el("dt", {}, "lesion"), el("dd", {}, mixWords(study))),
      el("div", {}, el("dt", {}, "method"), el("dd", {}, study.method ?? "–")),
      el("div", {}, el("dt", {}, "P(COVID-19)"), el("dd", { class: study.covid_probability === null ? "none" : null }, probabilityWords(study))),
    ),
    study.covid_probability !== null && measured?.trust
      ? el("p", { class: "sub trust" }, `How far P(COVID-19) can be trusted: ${measured.trust}`) : "");
}

export function warnings(sentences) {
  return sentences.length === 0 ? [] : [
    el("div", { class: "warnings" }, el("h3", {}, "Warnings"), el("ul", {}, ...sentences.map((words) => el("li", {}, words)))),
  ];
}

/** Asks the node why a study stands where it does, at most once for every place. */
export class PlaceWords {
  constructor() {
    this.key = "";
    this.item = null; // as the node answered last
  }

  /** Ask again where `study` stands elsewhere by now; `done` is called with the answer. */
  ask(study, done) {
    const key = JSON.stringify([study.study_instance_uid, study.state, study.generation, study.rank, study.arrival_rank, study.reasons]);
    if (key === this.key) return;
    if (this.item?.study_instance_uid !== study.study_instance_uid) this.item = null;
    this.key = key;
    clearTimeout(this.asked);
    this.asked = setTimeout(async () => {
      const answer = await get(`/api/place/${encodeURIComponent(study.study_instance_uid)}`);
      if (!answer.ok || key !== this.key) return;
      this.item = answer.body;
      done();
    }, SETTLED_MS);
  }

  /** Heading and sentences; until the node has answered, what the list says by itself. */
  elements(study) {
    const known = this.item?.study_instance_uid === study.study_instance_uid ? this.item : null;
    const reasons = (known ?? study).reasons.filter((reason) =>
      !/^(moved from|state:)|that came later read before it$/.test(reason) && !known?.explanation?.includes(reason));
    const explained = known?.explanation ? el("p", { class: "explanation dicom" }, sentence(known.explanation)) : null;
    return [
      el("h3", {}, `Place ${study.rank}`, el("small", {}, study.rank === study.arrival_rank ? " as by arrival" : ` by arrival ${study.arrival_rank}`)),
      ...(explained ? [explained] : []),
      el("ul", { class: "reasons dicom" }, ...reasons.map((reason) => el("li", {}, reason))),
    ];
  }
}

function sentence(words) {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}`;
}
