// The page of one study: everything the node knows of it, kept current while it is open.

import { numbers, overviewImage, warnings } from "./panel.js";
import { PriorityMark } from "./marks.js";
import { clock, duration, el, nameOf, studyDate } from "./words.js";

const AT_MOST_EVERY_MS = 1_000;

export class StudyPage {
  constructor(stream, uid) {
    this.uid = uid;
    this.element = document.getElementById("study");
    this.element.hidden = false;
    this.item = null;
    this.version = null;
    this.waiting = false;
    stream.addEventListener("list", (event) => this.#arrived(event.detail));
    this.#ask();
  }

  back() {
    location.assign(`/#${encodeURIComponent(this.uid)}`);
  }

  #arrived({ version, studies }) {
    this.item = studies.find((study) => study.study_instance_uid === this.uid) ?? null;
    if (version === this.version || this.waiting) return;
    this.version = version;
    this.waiting = true;
    setTimeout(() => {
      this.waiting = false;
      this.#ask();
    }, this.report ? AT_MOST_EVERY_MS : 0);
  }

  async #ask() {
    try {
      const answer = await fetch(`/api/study/${encodeURIComponent(this.uid)}`);
      const report = await answer.json();
      if (answer.ok) this.#draw(report);
      else this.element.replaceChildren(this.#backLink(), el("h2", {}, "Not found"), el("p", {}, `${report.error}.`));
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // no connection: the banner says so already
    }
  }

  #backLink() {
    return el("p", { class: "back" }, el("a", { class: "button", href: `/#${encodeURIComponent(this.uid)}` }, "← Worklist ", el("kbd", {}, "Esc")));
  }

  #draw(report) {
    const drawn = JSON.stringify([report, this.item && { ...this.item, waiting_s: 0 }]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.report = report;
    document.title = `${nameOf(report)} · study`;
    const old = this.element.querySelector("img.overview");
    const about = this.#asItem(report);
    const picture = report.measurements === null
      ? el("p", { class: "no-picture" }, report.not_analysed ? "Not analysed: there is no overview image." : "Not judged yet: no overview image.")
      : this.#picture(about, old);
    this.element.replaceChildren(
      this.#backLink(),
      this.#head(report),
      el("div", { class: "study-split" },
        el("div", {}, picture),
        el("div", {}, ...this.#answer(report, about), ...this.#place()),
      ),
      el("h3", {}, "Series"), seriesTable(report),
      el("h3", {}, "Results and their delivery"), objectsTable(report),
      el("h3", {}, "Events"), eventsTable(report),
      el("p", { class: "sub uid" }, `Study Instance UID ${report.study_instance_uid}`),
    );
  }

  #head(report) {
    const facts = [report.description || "no description", studyDate(report.study_date), `arrived ${clock(report.arrived_at)}`];
    const head = el("div", { class: "panel-head" }, el("h2", { class: "dicom" }, nameOf(report)));
    if (this.item) {
      const mark = new PriorityMark();
      mark.update(this.item);
      head.append(mark.element);
    }
    return el("div", {}, head, el("p", { class: "dicom sub" }, facts.filter(Boolean).join(" · ")));
  }

  #answer(report, about) {
    const { measurements, not_analysed: refusal } = report;
    if (measurements === null) {
      if (refusal === null) return [el("h3", {}, "Not judged yet"), el("p", {}, "The study waits for its analysis.")];
      return [el("h3", {}, "Not analysed"), el("p", { class: "dicom" }, `${refusal.words} `, el("code", {}, refusal.reason))];
    }
    const model = measurements.model;
    return [
      el("h3", {}, `Judged ${clock(report.judged_at)}`, el("small", {}, ` in ${report.seconds.toFixed(1)} s, answer number ${report.generation}`)),
      ...warnings(measurements.warnings),
      numbers(about, measurements, { parts: true }),
      el("p", { class: "sub" }, `${model.name} ${model.version}${model.describes ? `: ${model.describes}` : ""}`),
      el("p", { class: "sub parameters" }, parameterWords(measurements)),
    ];
  }

  #place() {
    if (!this.item) return [];
    return [
      el("h3", {}, `Place ${this.item.rank}`, el("small", {}, ` by arrival ${this.item.arrival_rank}`)),
      el("ul", { class: "reasons dicom" }, ...this.item.reasons.map((reason) => el("li", {}, reason))),
    ];
  }

  #picture(about, old) {
    const image = overviewImage(about);
    if (old !== null && old.dataset.address === image.dataset.address) return old;
    image.src = image.dataset.address;
    return image;
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

/** By which numbers the study was judged; those of its place are among the reasons for it. */
function parameterWords({ operating_point: point, consolidation_from_hu: split, model }) {
  return [
    `CT-1, CT-2 and CT-3 up to ${point.grades_up_to.map((cut) => `${+(100 * cut).toPrecision(3)}%`).join(", ")}`,
    split === null ? null : `consolidation from ${split} HU on`,
    ...model.parameters.map(([name, value]) => `${name}: ${value}`),
    `thresholds: ${point.source}`,
  ].filter(Boolean).join(" · ");
}

function table(headings, rows, nothing) {
  if (rows.length === 0) return el("p", { class: "sub" }, nothing);
  return el("div", { class: "wide" }, el("table", { class: "ledger" },
    el("thead", {}, el("tr", {}, ...headings.map((heading) => el("th", { scope: "col" }, heading)))),
    el("tbody", {}, ...rows)));
}

function row(attributes, ...cells) {
  return el("tr", attributes, ...cells.map((cell) => el("td", {}, ...[cell].flat())));
}

function seriesTable(report) {
  const rows = report.series.map((series) => row(
    { class: series.judged ? "chosen" : null },
    [el("b", {}, series.judged ? "judged" : series.refusal ? "passed over" : series.state === "open" ? "arriving" : "–")],
    [el("span", { class: "dicom" }, `${series.modality} ${series.description || "no description"}`), el("small", { class: "uid" }, series.series_instance_uid)],
    String(series.instances),
    series.refusal
      ? [el("span", { class: "dicom" }, series.refusal.words), el("small", {}, series.refusal.reason)]
      : series.judged ? "preferred by the selection rule" : "–",
    series.basis === null
      ? "still open"
      : [el("span", {}, series.evidence.join("; ")), el("small", {}, `${series.basis}, closed ${clock(series.closed_at)}, ${series.generation === 1 ? "once" : `${series.generation} times`}`)],
  ));
  return table(["", "Series", "Images", "Why", "On what evidence it counts as complete"], rows, "No series is known.");
}

function objectsTable(report) {
  const rows = report.objects.map((object) => row(
    { class: object.current ? null : "old" },
    [el("b", {}, object.kind), el("small", { class: "uid" }, object.sop_instance_uid)],
    object.current ? String(object.generation) : `${object.generation} (superseded)`,
    object.destination ?? "sent nowhere",
    [el("b", { class: ["refused", "given up"].includes(object.state) ? "bad" : null }, object.state ?? "–"),
      ...proofWords(object).map((words) => el("small", {}, words))],
    object.deliveries.length === 0 ? "–" : [el("ul", {}, ...object.deliveries.map((delivery) => el("li", {}, attemptWords(delivery))))],
  ));
  return table(["Object", "Answer", "Destination", "State", "What was asked and answered"], rows, "No object has been made yet.");
}

/** How far the destination has vouched for an object, a line each. */
function proofWords(object) {
  const steps = [["stored", object.stored_at], ["committed", object.committed_at], ["confirmed", object.confirmed_at]];
  return [
    ...steps.filter(([, at]) => at !== null).map(([step, at]) => `${step} ${clock(at)}`),
    object.awaiting.length ? `awaiting ${object.awaiting.join(" and ")}` : null,
    object.resends ? `sent again ${object.resends === 1 ? "once" : `${object.resends} times`}` : null,
    object.next_at ? `next attempt ${clock(object.next_at)}` : null,
  ].filter(Boolean);
}

function attemptWords(delivery) {
  const status = delivery.status === null ? "" : ` 0x${delivery.status.toString(16).toUpperCase().padStart(4, "0")}`;
  return `${clock(delivery.at)} ${delivery.state}${status}${delivery.words ? `: ${delivery.words}` : ""}`;
}

function eventsTable(report) {
  const start = report.events.length ? Date.parse(report.events[0].at) : 0;
  const rows = report.events.map((event) => row(
    {},
    [el("span", {}, clock(event.at)), el("small", {}, `+${sinceWords((Date.parse(event.at) - start) / 1000)}`)],
    event.process,
    [el("b", {}, event.event)],
    [el("span", { class: "dicom detail" }, detailWords(event.detail))],
  ));
  return table(["When", "Process", "Event", "Detail"], rows, "Nothing has happened yet.");
}

function sinceWords(seconds) {
  return seconds < 60 ? `${seconds.toFixed(1)} s` : duration(seconds);
}

function detailWords(detail) {
  return Object.entries(detail)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join("; ") : value}`)
    .join(" · ");
}
