// The axial slices of a study: wheel, keys and drags go through them, outlines lie on the slice they belong to.

import { Films } from "./films.js";
import { get } from "./node.js";
import { Profile, lesionWords, shape } from "./profile.js";
import { el, studyAddress, write } from "./words.js";

const WHEEL_STEP = 50; // of a wheel's or touch pad's travel, for one slice
const DRAG_STEP_PX = 6;
const LARGEST_ZOOM = 8;
const SCALE_BAR_MM = 50;
const SHOWN_KEPT = "outlines"; // for as long as the browser's tab is open
const GROUPS = {
  lesions: { kinds: ["lesion", "ground glass", "consolidation"], key: "o", words: "lesions" },
  lungs: { kinds: ["right lung", "left lung"], key: "l", words: "lungs" },
};

export class Viewer {
  /** Shows the slices of study `uid` in `element`. */
  constructor(element, uid) {
    this.element = element;
    this.uid = uid;
    this.facts = null;
    this.films = null;
    this.window = "lung";
    this.number = 1; // that is wanted; the one on screen is `shown`
    this.shown = null;
    this.direction = 1;
    this.outlined = new Set(JSON.parse(sessionStorage.getItem(SHOWN_KEPT) ?? '["lesions","lungs"]'));
    this.travel = 0;
    this.#reset();
    new ResizeObserver(() => this.#fit()).observe(element);
  }

  /** Look at the newest answer; `known` is the answer's number, asked for only when it is another one. */
  async load(known) {
    if (this.known === known) return;
    this.known = known;
    const answer = await get(`${studyAddress(this.uid)}/slices`);
    if (this.known !== known) return;
    if (!answer.ok) {
      this.facts = null;
      this.shown = null;
      this.element.replaceChildren(el("p", { class: "no-picture dicom" }, `The slices cannot be shown: ${answer.words}`));
      return;
    }
    if (this.facts?.token === answer.body.token) return;
    const first = this.facts === null;
    this.facts = answer.body;
    this.films = new Films(this.uid, this.facts);
    if (first) this.number = this.facts.worst ?? Math.ceil(this.facts.slices / 2);
    this.#build();
    this.goTo(this.number);
  }

  // ---- what people do

  goTo(number) {
    if (this.facts === null) return;
    const wanted = Math.max(1, Math.min(this.facts.slices, number));
    if (wanted !== this.number) this.direction = Math.sign(wanted - this.number);
    this.number = wanted;
    this.profile.show(wanted);
    this.#show();
  }

  move(step) {
    this.goTo(step === Infinity ? this.facts?.slices : step === -Infinity ? 1 : this.number + step);
  }

  goToWorst() {
    if (this.facts?.worst) this.goTo(this.facts.worst);
  }

  setWindow(name) {
    if (this.facts === null) return;
    this.window = name;
    for (const button of this.element.querySelectorAll("[data-window]")) {
      button.setAttribute("aria-pressed", String(button.dataset.window === name));
    }
    this.#show();
  }

  /** The nth preset, from 1. */
  preset(position) {
    const found = this.facts?.windows[position - 1];
    if (found) this.setWindow(found.name);
  }

  toggle(group) {
    if (this.facts === null) return;
    if (!this.outlined.delete(group)) this.outlined.add(group);
    sessionStorage.setItem(SHOWN_KEPT, JSON.stringify([...this.outlined]));
    this.#outline();
  }

  zoom(factor, at = null) {
    if (this.facts === null) return;
    const before = this.scale;
    this.scale = Math.max(1, Math.min(LARGEST_ZOOM, before * factor));
    const box = this.film.getBoundingClientRect();
    // the point under the pointer stays where it is
    const [x, y] = at === null ? [0, 0] : [at.clientX - (box.left + box.width / 2), at.clientY - (box.top + box.height / 2)];
    this.x += x * (1 - this.scale / before);
    this.y += y * (1 - this.scale / before);
    if (this.scale === 1) this.x = this.y = 0;
    this.#place();
  }

  #reset() {
    this.scale = 1;
    this.x = this.y = 0;
  }

  // ---- drawing

  #build() {
    const { facts } = this;
    this.canvas = el("canvas", { width: facts.columns, height: facts.rows });
    this.drawing = shape("svg", { viewBox: `0 0 ${facts.columns} ${facts.rows}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.film = el("div", { class: "film" }, this.canvas, this.drawing);
    this.where = el("p", { class: "where" });
    this.grey = el("p", { class: "grey" });
    this.legend = el("p", { class: "legend" });
    this.trouble = el("p", { class: "trouble", role: "alert", hidden: true });
    this.ruler = el("p", { class: "ruler" }, el("i", { "aria-hidden": "true" }), "5 cm");
    const edges = Object.entries(facts.edges).map(([side, letters]) => el("b", { class: `edge ${side}` }, letters));
    this.stage = el("div", { class: "stage" }, this.film, ...edges, this.where, this.grey, this.legend, this.ruler, this.trouble,
      el("p", { class: "burned" }, "NOT FOR DIAGNOSTIC USE"));
    this.profile = new Profile(facts, (number) => this.goTo(number));
    this.element.replaceChildren(this.#tools(), el("div", { class: "light" }, this.stage, this.profile.element));
    this.#listen();
    this.#reset();
    this.#fit();
    this.setWindow(this.window);
  }

  #tools() {
    const { facts } = this;
    const windows = facts.windows.map(({ name, center_hu: center, width_hu: width }, index) => {
      const button = el("button", { type: "button", "data-window": name, title: `centre ${center} HU, width ${width} HU` }, `${name} `, el("kbd", {}, String(index + 1)));
      button.addEventListener("click", () => this.setWindow(name));
      return button;
    });
    const groups = Object.entries(GROUPS).filter(([, { kinds }]) => kinds.some((kind) => facts.kinds.includes(kind))).map(([name, { key, words }]) => {
      const button = el("button", { type: "button", "data-outlines": name }, `${words} `, el("kbd", {}, key));
      button.addEventListener("click", () => this.toggle(name));
      return button;
    });
    const worst = el("button", { type: "button", "data-worst": true, hidden: facts.worst === null }, "most lesion ", el("kbd", {}, "w"));
    worst.addEventListener("click", () => this.goToWorst());
    return el("div", { class: "viewer-tools" },
      el("span", { class: "segments", role: "group", "aria-label": "Window" }, ...windows),
      groups.length ? el("span", { class: "segments", role: "group", "aria-label": "Outlines" }, ...groups) : null,
      worst,
      facts.remark ? el("span", { class: "bad" }, facts.remark) : null);
  }

  #listen() {
    this.stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey) this.zoom(event.deltaY < 0 ? 1.25 : 0.8, event);
      else this.#roll(event.deltaMode === 0 ? event.deltaY : event.deltaY * 40);
    }, { passive: false });
    let last = null;
    this.stage.addEventListener("pointerdown", (event) => {
      last = [event.clientX, event.clientY];
      this.stage.setPointerCapture(event.pointerId);
    });
    this.stage.addEventListener("pointerup", () => { last = null; });
    this.stage.addEventListener("pointercancel", () => { last = null; });
    this.stage.addEventListener("pointermove", (event) => {
      if (last === null) return;
      const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
      if (this.scale > 1) {
        [this.x, this.y] = [this.x + dx, this.y + dy];
        this.#place();
      } else if (Math.abs(dy) < DRAG_STEP_PX) return;
      else this.move(Math.trunc(dy / DRAG_STEP_PX));
      last = [event.clientX, event.clientY];
    });
    this.stage.addEventListener("dblclick", (event) => this.zoom(this.scale > 1 ? 1 / LARGEST_ZOOM : 2, event));
  }

  #roll(travel) {
    if (Math.sign(travel) !== Math.sign(this.travel)) this.travel = 0;
    this.travel += travel;
    const steps = Math.trunc(this.travel / WHEEL_STEP);
    this.travel -= steps * WHEEL_STEP;
    if (steps !== 0) this.move(Math.abs(travel) >= 100 ? Math.sign(steps) : steps); // a notch of a wheel is one slice
  }

  /** The largest size at which the whole slice is seen, with pixels as wide and high as they are. */
  #fit() {
    if (this.facts === null || !this.stage) return;
    const { columns, rows, column_spacing_mm: dx, row_spacing_mm: dy } = this.facts;
    const mm = Math.min(this.stage.clientWidth / (columns * dx), this.stage.clientHeight / (rows * dy));
    this.pxPerMm = mm;
    this.film.style.width = `${columns * dx * mm}px`;
    this.film.style.height = `${rows * dy * mm}px`;
    this.#place();
  }

  #place() {
    this.film.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.ruler.firstChild.style.width = `${SCALE_BAR_MM * this.pxPerMm * this.scale}px`;
  }

  async #show() {
    const { number, window, films } = this;
    this.stage.classList.toggle("loading", !films.ready.has(`${window} ${number}`));
    try {
      const film = await films.film(number, window);
      if (films !== this.films) return;
      films.ahead(this.number, this.window, this.direction);
      if (number !== this.number || window !== this.window) return; // somebody has scrolled on
      this.stage.classList.remove("loading");
      this.trouble.hidden = true;
      // picture, outlines and numbers change together: nothing is ever drawn on another slice than its own
      this.canvas.getContext("2d").drawImage(film.image, 0, 0);
      this.shown = { number, window, outlines: film.outlines };
      this.#outline();
      this.#label();
    } catch (error) {
      if (films !== this.films || number !== this.number) return;
      this.stage.classList.remove("loading");
      this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
      this.drawing.replaceChildren();
      this.shown = null;
      write(this.where, `slice ${number} of ${this.facts.slices}`);
      write(this.trouble, `This slice cannot be shown: ${error.message}`);
      this.trouble.hidden = false;
    }
  }

  #outline() {
    for (const button of this.element.querySelectorAll("[data-outlines]")) {
      button.setAttribute("aria-pressed", String(this.outlined.has(button.dataset.outlines)));
    }
    const seen = Object.entries(GROUPS).filter(([name]) => this.outlined.has(name)).flatMap(([, { kinds }]) => kinds);
    const found = this.shown?.outlines ?? {};
    this.drawing.replaceChildren(...[...seen].reverse().filter((kind) => found[kind]).map((kind) =>
      shape("path", { d: found[kind], "data-kind": kind.replace(" ", "-") })));
    this.legend.replaceChildren(...seen.filter((kind) => this.facts.kinds.includes(kind)).map((kind) =>
      el("span", {}, el("i", { "data-kind": kind.replace(" ", "-"), "aria-hidden": "true" }), kind)));
  }

  #label() {
    const { facts, shown: { number, window } } = this;
    const { center_hu: center, width_hu: width } = facts.windows.find(({ name }) => name === window);
    this.where.replaceChildren(
      el("b", {}, `${number} / ${facts.slices}`),
      el("span", {}, `${facts.names[number - 1]} · ${facts.positions_mm[number - 1].toFixed(1)} mm`),
      el("span", { class: "here" }, lesionWords(facts, number)));
    write(this.grey, `${window} · C ${center} W ${width}`);
    this.stage.dataset.slice = String(number);
    this.stage.dataset.window = window;
  }
}
