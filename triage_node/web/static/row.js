// One study on the list. A row is made once and then only told what changed.

import { LungBars, MovementMark, PriorityMark } from "./marks.js";
import { standing } from "./claims.js";
import {
  duration, el, isJudged, mixShares, nameOf, percent, probabilityWords, studyDate, thumbnailAddress, write,
} from "./words.js";

export const THUMBNAIL_PX = 160;

export class Row {
  constructor(uid) {
    this.uid = uid;
    this.index = -1;
    this.shown = ""; // what was drawn last, to draw nothing twice
    this.place = el("b");
    this.movement = new MovementMark();
    this.priority = new PriorityMark();
    this.name = el("b", { class: "dicom" });
    this.description = el("span", { class: "dicom" });
    this.date = el("span", { class: "date" });
    this.wait = el("b");
    this.late = el("small");
    this.bars = new LungBars();
    this.grade = el("b");
    this.score = el("small");
    this.mix = [["ground glass", "GG"], ["consolidation", "cons."]].map(([long, short]) => {
      const number = el("b");
      return { number, element: el("span", {}, el("i", { class: "long" }, long), el("i", { class: "short", "aria-hidden": "true" }, short), " ", number) };
    });
    this.noLesion = el("span");
    this.probability = el("span");
    this.state = el("b");
    this.reasons = el("span", { class: "dicom" });
    this.image = el("img", { alt: "", loading: "lazy", decoding: "async", hidden: true });
    this.image.addEventListener("error", () => { this.image.hidden = true; });
    const cell = (name, ...children) => el("span", { class: name, role: "gridcell" }, ...children);
    this.element = el(
      "div",
      { class: "row", role: "row", tabindex: "-1", "data-uid": uid },
      cell("rank", this.place, this.movement.element),
      cell("priority", this.priority.element),
      cell("study", this.name, el("span", { class: "about" }, this.date, this.description)),
      cell("wait", this.wait, this.late),
      cell("lungs", this.bars.element),
      cell("grade", this.grade, this.score),
      cell("mix", ...this.mix.map(({ element }) => element), this.noLesion),
      cell("probability", this.probability),
      cell("thumb", this.image),
      cell("state", el("i", { "aria-hidden": "true" }), this.state, " ", this.reasons),
    );
  }

  /** Draw `study`; `place` is its number in the order that is shown, `name` that of who looks at it. */
  update(study, place, name) {
    const shown = JSON.stringify([place, name, study]);
    if (shown === this.shown) return;
    this.shown = shown;
    this.study = study;
    this.element.dataset.state = study.state;
    write(this.place, String(place));
    this.movement.update(study);
    this.priority.update(study);
    write(this.name, nameOf(study));
    this.name.classList.toggle("none", !study.accession_number);
    write(this.description, study.description || "no description");
    write(this.date, studyDate(study.study_date));
    this.bars.update(study);
    write(this.grade, study.ct_grade ?? "–");
    write(this.score, study.ct_ss === null ? "" : `SS ${study.ct_ss}`);
    const shares = mixShares(study);
    this.mix.forEach(({ number, element }, index) => {
      element.hidden = shares === null;
      write(number, shares === null ? "" : percent(shares[index]));
    });
    write(this.noLesion, shares !== null ? "" : isJudged(study) ? "no lesion" : "–");
    write(this.probability, probabilityWords(study));
    this.probability.classList.toggle("none", study.covid_probability === null);
    write(this.state, standing(study, name));
    this.element.toggleAttribute("data-mine", study.state === "reading" && study.performer === name);
    write(this.reasons, reasonWords(study));
    this.#thumbnail(study);
  }

  #thumbnail(study) {
    const address = study.has_overview ? thumbnailAddress(study.study_instance_uid, study.generation, THUMBNAIL_PX) : "";
    if (this.image.getAttribute("src") === address || (address === "" && this.image.hidden)) return;
    this.image.hidden = address === "";
    if (address) this.image.src = address;
  }

  /** The waiting time runs on between two lists. */
  tick(now, maximum_min) {
    const study = this.study;
    if (["read", "cancelled"].includes(study.state) || study.arrived_at === null) {
      write(this.wait, "–");
      write(this.late, "");
      return;
    }
    const waited_s = (now - Date.parse(study.arrived_at)) / 1000;
    const late = study.state !== "reading" && waited_s >= maximum_min * 60;
    write(this.wait, duration(waited_s));
    write(this.late, late ? `over ${maximum_min} min` : "");
    this.element.toggleAttribute("data-late", late);
  }
}

// What the bars and the columns of the list show already.
const SHOWN = /^(\d+% of the (right|left) lung affected|<1% of the (right|left) lung affected|P\(COVID-19\) .*|not judged yet)$/;

/** The reasons on one line, those first that are to be read nowhere else on it. */
export function reasonWords(study) {
  const { reasons } = study;
  if (!isJudged(study)) {
    return reasons.filter((reason) => !SHOWN.test(reason))
      .map((reason) => reason.replace(/^not analysed: /, study.state === "not_analysed" ? "because " : "not analysed because ")).join("; ");
  }
  return reasons.filter((reason) => !SHOWN.test(reason)).join(" · ");
}
