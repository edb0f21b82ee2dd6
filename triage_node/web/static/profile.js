// The bar beside the slices: how much lung and how much lesion lies on each, head above; it is also the scroll bar.

import { el, percent } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 100;

export class Profile {
  /** `goTo` is called with the number of the slice that was chosen. */
  constructor(facts, goTo) {
    this.facts = facts;
    const { slices, lung_mm2: lung, lesion_mm2: lesion, worst } = facts;
    this.marker = shape("rect", { class: "here", x: 0, width: WIDTH, height: 1 });
    const largest = Math.max(1, ...(lung ?? [1]));
    const drawing = shape("svg", { viewBox: `0 0 ${WIDTH} ${slices}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      lung && shape("path", { class: "lung", d: area(lung, largest) }),
      lesion && shape("path", { class: "lesion", d: area(lesion, largest) }),
      worst && shape("path", { class: "worst", d: `M0 ${worst - 0.5}H${WIDTH}` }),
      this.marker);
    this.track = el("div", {
      class: "track", role: "slider", tabindex: "0", "aria-orientation": "vertical", "aria-label": "Slice",
      "aria-valuemin": 1, "aria-valuemax": slices,
    }, drawing);
    this.element = el("div", { class: "profile", title: lung ? "Lung (grey) and lesion (orange) on each slice; the dotted line is the slice with most lesion" : "Slices from head to feet" },
      el("small", {}, "head"), this.track, el("small", {}, "feet"));
    const choose = (event) => {
      const box = this.track.getBoundingClientRect();
      goTo(Math.floor(((event.clientY - box.top) / box.height) * slices) + 1);
    };
    this.track.addEventListener("pointerdown", (event) => {
      this.track.setPointerCapture(event.pointerId);
      choose(event);
    });
    this.track.addEventListener("pointermove", (event) => this.track.hasPointerCapture(event.pointerId) && choose(event));
  }

  show(number) {
    this.marker.setAttribute("y", number - 1);
    this.track.setAttribute("aria-valuenow", number);
    this.track.setAttribute("aria-valuetext", `slice ${number} of ${this.facts.slices}${lesionWords(this.facts, number, ", ")}`);
  }
}

/** "lesion 34% of the lung here", or nothing where that was not measured. */
export function lesionWords(facts, number, before = "") {
  if (facts.share === null) return "";
  const share = facts.share[number - 1];
  return before + (share === null ? "no lung on this slice" : `lesion ${percent(share)} of the lung on this slice`);
}

function area(values, largest) {
  const steps = values.map((value, index) => `M0 ${index + 0.5}H${((value / largest) * WIDTH).toFixed(2)}`);
  return values.some((value) => value > 0) ? steps.filter((_, index) => values[index] > 0).join("") : "";
}

export function shape(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter(Boolean));
  return element;
}
